#ifndef MMLAB_SERVER_METRICS_SERVER_METRICS_H_
#define MMLAB_SERVER_METRICS_SERVER_METRICS_H_

#include <chrono>
#include <string>

#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/http/http_server.h"
#include "server/metrics/exposition.h"
#include "server/metrics/rpc_metrics.h"

namespace mmlab {

class Host;

struct BuildInfo {
  std::string version;  // "0.1.0"
  std::string revision;
  std::string compiler;
  std::string grpc_version;
};

// What GET /metrics shows: the server's own state and work. What happens seldom is kept in prometheus-cpp's registry; calls are counted
// without locks (RpcMetrics); what the host knows anyway is read from it at the scrape.
class ServerMetrics : public HttpObserver {
 public:
  // `host` outlives this.
  ServerMetrics(const Host& host, const BuildInfo& build);

  RpcObserver& rpc_observer() { return rpc_; }

  // Makes a route's series exist with 0.
  void DeclareHandler(absl::string_view handler);
  void OnHttpRequest(absl::string_view handler, int code, std::chrono::nanoseconds took) override;
  // One probe, collecting and writing.
  void OnProbe(std::chrono::nanoseconds took);

  Families Collect() const;

 private:
  const Host& host_;
  RpcMetrics rpc_;
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& http_requests_;
  prometheus::Family<prometheus::Histogram>& http_seconds_;
  prometheus::Histogram& probe_seconds_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_SERVER_METRICS_H_
