#include "client/replay/kernel/kernel_comparison.h"

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/replay/recording.h"

namespace mmlab {
namespace {

using Recorded = nlohmann::ordered_json;
using Json = nlohmann::json;  // Sorted keys: equality does not depend on their order.

// The first thing that differs: its name, and both answers.
struct Difference {
  std::string what;
  Json recorded;
  Json answered;
};

// Which answered slab stands for which recorded one; notices when a slab changes its identity.
class SlabIdentities {
 public:
  bool Same(const Json& recorded, const Json& answered, bool is_new) {
    if (recorded.is_null() || answered.is_null()) return recorded == answered;
    const auto known = known_.find(recorded);
    if (!is_new && known != known_.end()) return known->second == answered;
    std::erase_if(known_, [&](const auto& entry) { return entry.second == answered; });
    known_[recorded] = answered;
    return true;
  }

 private:
  std::map<Json, Json> known_;
};

Json Get(const Json& object, const std::string& key) { return object.is_object() && object.contains(key) ? object[key] : Json(); }

std::optional<Difference> CompareOperation(const std::string& suite, const Json& want, const Json* got, SlabIdentities& slabs) {
  if (got == nullptr) return Difference{"answer", Get(want, "op"), Json()};
  const bool new_slab = Get(want, "new_slab") == Json(true);
  for (const auto& [key, value] : want.items()) {
    if (key == "indexes" || key == "index" || absl::EndsWith(key, "_index")) continue;  // A slab's order of objects is random.
    if (suite == "kmap" && key == "pfn") continue;
    if (key == "name" && Get(want, "op") == Json("cache_create") && Get(want, "merged") != Json(true)) continue;
    const Json other = Get(*got, key);
    bool same = value == other;
    if (suite == "slab" && absl::EndsWith(key, "slab_pfn")) same = slabs.Same(value, other, new_slab && key == "slab_pfn");
    if (suite == "slab" && (key == "pfns" || key == "slab_pfns")) same = value.size() == other.size();
    if (!same) return Difference{key, value, other};
  }
  return std::nullopt;
}

std::optional<Difference> CompareZones(const Json& want, const Json& got) {
  std::map<std::string, Json> answered;
  for (const Json& zone : Get(got, "zones")) answered[zone.at("zone")] = zone;
  for (const Json& zone : Get(want, "zones")) {
    const std::string name = zone.at("zone");
    for (const char* key : {"free", "nr_free", "pcp", "blocks", "watermark_boost", "nr_reserved_highatomic", "nr_free_pages"}) {
      if (!zone.contains(key)) continue;
      const Json other = Get(answered[name], key);
      if (zone[key] != other) return Difference{absl::StrCat(name, ".", key), zone[key], other};
    }
  }
  return std::nullopt;
}

// Areas without who asked for them: [start, end, caller, pages, flags] -> [start, end, pages].
Json WithoutCallers(const Json& areas) {
  Json kept = Json::array();
  for (const Json& area : areas) {
    Json one = Json::array();
    for (const size_t i : {0, 1, 3}) {
      if (i < area.size()) one.push_back(area[i]);
    }
    kept.push_back(one);
  }
  return kept;
}

std::optional<Difference> CompareDump(const std::string& suite, const Json& want, const Json* got) {
  if (got == nullptr) return Difference{"dump", Get(want, "which"), Json()};
  if (suite == "buddy") return CompareZones(want, *got);
  static constexpr const char* kVmalloc[] = {"busy", "lazy", "free", "lazy_pages", "vmalloc_pages"};
  static constexpr const char* kKmap[] = {"last_pkmap_nr", "local_idx", "pkmap_count"};
  for (const char* key : suite == "vmalloc" ? std::vector<const char*>(std::begin(kVmalloc), std::end(kVmalloc))
                                            : std::vector<const char*>(std::begin(kKmap), std::end(kKmap))) {
    Json value = Get(want, key);
    Json other = Get(*got, key);
    if (!want.contains(key)) continue;
    if (suite == "vmalloc" && key == std::string("busy")) {
      value = WithoutCallers(value);
      other = WithoutCallers(other);
    }
    if (value != other) return Difference{key, value, other};
  }
  return std::nullopt;
}

class Judge {
 public:
  Judge(const std::vector<Recorded>& recorded, const std::vector<Recorded>& answered) : suite_(recorded.at(0).value("suite", "?")) {
    for (const Recorded& line : answered) {
      if (line.contains("op") && line.contains("i")) ops_[line["i"].get<int64_t>()] = line;
      if (line.value("kind", "") == "state") states_[{line.at("at").get<int64_t>(), line.value("which", "")}] = line;
    }
    for (const Recorded& line : recorded) See(line);
  }
  const Comparison& comparison() const { return comparison_; }

 private:
  void See(const Json& line) {
    const bool judges_dumps = suite_ == "buddy" || suite_ == "vmalloc" || suite_ == "kmap";
    if (line.contains("op")) {
      const auto found = ops_.find(line.at("i").get<int64_t>());
      Count(absl::StrCat("op ", found == ops_.end() ? -1 : found->first, " ", line["op"].get<std::string>()),
            CompareOperation(suite_, line, found == ops_.end() ? nullptr : &found->second, slabs_));
    } else if (judges_dumps && line.value("kind", "") == "state" && line.value("which", "") != "initial" && line.value("at", 0) > 0) {
      const auto at = line.at("at").get<int64_t>();
      const auto found = states_.find({at, line.value("which", "")});
      Count(absl::StrCat("dump at ", at), CompareDump(suite_, line, found == states_.end() ? nullptr : &found->second));
    }
  }

  void Count(const std::string& place, const std::optional<Difference>& difference) {
    ++comparison_.steps;
    comparison_.exact += !difference.has_value();
    if (!difference || !comparison_.first_difference.empty()) return;
    comparison_.first_difference = absl::StrCat(place, ", ", difference->what, "\n  Linux:   ", difference->recorded.dump().substr(0, 400),
                                                "\n  machine: ", difference->answered.dump().substr(0, 400), "\n");
  }

  std::string suite_;
  std::map<int64_t, Json> ops_;
  std::map<std::pair<int64_t, std::string>, Json> states_;
  SlabIdentities slabs_;
  Comparison comparison_;
};

}  // namespace

absl::StatusOr<Comparison> CompareKernelAnswers(const std::vector<Recorded>& recorded, const std::vector<Recorded>& answered) {
  return ReadingRecording([&]() -> absl::StatusOr<Comparison> { return Judge(recorded, answered).comparison(); });
}

}  // namespace mmlab
