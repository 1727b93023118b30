#include "server/metrics/discovery.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "server/base/status_macros.h"
#include "server/host/host.h"
#include "server/metrics/collector_choice.h"
#include "server/metrics/machine_labels.h"

namespace mmlab {
namespace {

// Which machines the caller wants.
struct Filter {
  std::string arch;  // Empty: any.
  std::string state;
  std::string tenant;
  std::vector<std::pair<std::string, std::string>> labels;
  uint64_t shard = 0;
  uint64_t total_shards = 1;

  bool Matches(const HostedMachine& machine) const {
    if (!tenant.empty()) return false;
    if (!arch.empty() && ArchLabel(machine.layout()) != arch) return false;
    if (!state.empty() && StateLabel(machine.state()) != state) return false;
    for (const auto& [key, value] : labels) {
      const auto found = machine.labels().find(key);
      if (found == machine.labels().end() || found->second != value) return false;
    }
    return ShardOf(machine.id(), total_shards) == shard;
  }
};

std::string First(const HttpRequest& request, absl::string_view name) {
  const std::vector<std::string> values = request.QueryValues(name);
  return values.empty() ? "" : values[0];
}

template <typename Values>
absl::Status CheckOneOf(absl::string_view name, const std::string& value, const Values& values) {
  if (value.empty() || std::find(values.begin(), values.end(), value) != values.end()) return absl::OkStatus();
  const auto append = [](std::string* out, absl::string_view one) { absl::StrAppend(out, one); };
  return absl::InvalidArgumentError(absl::StrCat(name, " must be one of ", absl::StrJoin(values, ", ", append)));
}

absl::StatusOr<Filter> FilterFrom(const HttpRequest& request) {
  Filter filter;
  filter.arch = First(request, "arch");
  filter.state = First(request, "state");
  filter.tenant = First(request, "tenant");
  MMLAB_RETURN_IF_ERROR(CheckOneOf("arch", filter.arch, kArchLabels));
  MMLAB_RETURN_IF_ERROR(CheckOneOf("state", filter.state, kStateLabels));
  for (const std::string& label : request.QueryValues("label")) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0) return absl::InvalidArgumentError("label must be KEY=VALUE");
    filter.labels.emplace_back(label.substr(0, equals), label.substr(equals + 1));
  }
  const std::string shard = First(request, "shard");
  const std::string total = First(request, "total_shards");
  if (shard.empty() && total.empty()) return filter;
  if (!absl::SimpleAtoi(shard, &filter.shard) || !absl::SimpleAtoi(total, &filter.total_shards) || filter.shard >= filter.total_shards) {
    return absl::InvalidArgumentError("shard and total_shards go together, shard from 0 to total_shards - 1");
  }
  return filter;
}

// A host name or address with an optional port, as it may stand in a URL. What a client claims goes no further unless it is one.
bool IsHostAndPort(absl::string_view text) {
  return !text.empty() && text.size() <= 255 + 6 && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' || c == ':' || c == '[' || c == ']';
  });
}

// Label names of Prometheus know no '-'.
std::string MetaLabel(absl::string_view key) {
  std::string name = absl::StrCat("__meta_mmlab_label_", key);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

nlohmann::ordered_json GroupOf(const HostedMachine& machine, const std::string& address, const std::string& collect) {
  nlohmann::ordered_json labels = {{"__metrics_path__", "/probe"},
                                   {"__param_target", machine.id()},
                                   {"instance", machine.id()},
                                   {"__meta_mmlab_arch", std::string(ArchLabel(machine.layout()))},
                                   {"__meta_mmlab_state", std::string(StateLabel(machine.state()))}};
  if (!collect.empty()) labels["__param_collect"] = collect;
  for (const auto& [key, value] : machine.labels()) labels[MetaLabel(key)] = value;
  return {{"targets", {address}}, {"labels", std::move(labels)}};
}

}  // namespace

uint64_t ShardOf(absl::string_view machine_id, uint64_t total_shards) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, 64 bits.
  for (const char c : machine_id) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash % total_shards;
}

HttpResponse AnswerDiscovery(const Host& host, const HttpRequest& request, const std::string& external_address) {
  const auto filter = FilterFrom(request);
  if (!filter.ok()) return TextResponse(400, filter.status().message());
  if (const auto choice = ChooseCollectors(request); !choice.ok()) return TextResponse(400, choice.status().message());
  const std::string address = external_address.empty() ? request.Header("host").value_or("") : external_address;
  if (!IsHostAndPort(address)) return TextResponse(400, "the Host header must be a host and a port");

  const std::string collect = absl::StrJoin(request.QueryValues("collect"), ",");
  nlohmann::ordered_json groups = nlohmann::ordered_json::array();
  std::vector<std::shared_ptr<HostedMachine>> machines = host.All();
  std::sort(machines.begin(), machines.end(), [](const auto& a, const auto& b) { return a->id() < b->id(); });
  for (const std::shared_ptr<HostedMachine>& machine : machines) {
    if (filter->Matches(*machine)) groups.push_back(GroupOf(*machine, address, collect));
  }
  return HttpResponse{.content_type = kApplicationJson, .body = groups.dump(), .headers = {}};
}

}  // namespace mmlab
