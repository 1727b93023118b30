#ifndef MMLAB_SERVER_METRICS_DISCOVERY_H_
#define MMLAB_SERVER_METRICS_DISCOVERY_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "server/http/http_server.h"

namespace mmlab {

class Host;

// GET /sd/prometheus: Prometheus's HTTP service discovery, one target group a machine, with labels that make it one target of its own
// without relabelling. Parameters: arch, state, label=KEY=VALUE (repeatable), tenant (no machine has one yet), shard and total_shards,
// collect. 400 for values that can't be, so that Prometheus keeps the list that it has.
//
// The target is `external_address`, or, when that is empty, the address under which the caller reached the server.
HttpResponse AnswerDiscovery(const Host& host, const HttpRequest& request, const std::string& external_address);

// Which shard a machine belongs to: the same on every server, for ever. REQUIRES: total_shards > 0.
uint64_t ShardOf(absl::string_view machine_id, uint64_t total_shards);

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_DISCOVERY_H_
