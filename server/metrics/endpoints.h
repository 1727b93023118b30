#ifndef MMLAB_SERVER_METRICS_ENDPOINTS_H_
#define MMLAB_SERVER_METRICS_ENDPOINTS_H_

#include <string>

#include "server/http/http_server.h"
#include "server/metrics/server_metrics.h"

namespace mmlab {

class Host;

// Puts /metrics, /probe and /sd/prometheus on the HTTP port. `external_address` is HOST:PORT for discovery; empty = as the caller reached
// it. `host` and `metrics` outlive the server.
void ServeMetrics(HttpServer& http, const Host& host, ServerMetrics& metrics, const std::string& external_address);

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_ENDPOINTS_H_
