#ifndef MMLAB_SERVER_METRICS_COLLECTOR_CHOICE_H_
#define MMLAB_SERVER_METRICS_COLLECTOR_CHOICE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "server/http/http_server.h"
#include "server/metrics/collector.h"

namespace mmlab {

// Which collectors a probe's query asks for, by name: the default ones; only those of collect[]=NAME (repeatable, as node_exporter) and
// collect=NAME,NAME (what service discovery can set), where the name "default" stands for all default ones; or the default ones less those
// of exclude[]=NAME. INVALID_ARGUMENT: a name that is no collector, or both at once.
absl::StatusOr<std::vector<const Collector*>> ChooseCollectors(const HttpRequest& request);

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_COLLECTOR_CHOICE_H_
