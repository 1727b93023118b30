#include "client/replay/comparison.h"

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/replay/recording.h"

namespace mmlab {
namespace {

using Recorded = nlohmann::ordered_json;
using Json = nlohmann::json;  // Sorted keys: equality does not depend on their order.

constexpr const char* kResultKeys[] = {"ret",       "errno",   "signal",  "value",     "done",
                                       "failed_at", "fnv1a64", "mincore", "last_addr", "aborted"};

// Rebuilds, step by step, what could be seen after the step from records that hold only what changed.
class Observer {
 public:
  // Everything judged, by category.
  std::map<std::string, Json> After(const Recorded& record);

 private:
  struct Process {
    Json vmas = Json::array();
    Json vma_count;
    Json rss;
    Json oom_score;
    Json status = Json::object();
    Json smaps = Json::object();
  };
  void Update(const std::string& index, const Json& seen);

  std::map<std::string, Process> processes_;
};

void Observer::Update(const std::string& index, const Json& seen) {
  Process& process = processes_[index];
  if (seen.contains("vmas")) {
    process.vmas = seen["vmas"];
    process.vma_count = process.vmas.size();
    std::set<std::string> starts;
    for (const Json& vma : process.vmas) starts.insert(vma.at(0).get<std::string>());
    for (auto it = process.smaps.begin(); it != process.smaps.end();) {
      it = starts.count(it.key()) == 0 ? process.smaps.erase(it) : std::next(it);
    }
  }
  if (seen.contains("vma_count")) {
    process.vma_count = seen["vma_count"];
    process.vmas = Json::array();
  }
  if (seen.contains("rss")) process.rss = seen["rss"];
  if (seen.contains("oom_score")) process.oom_score = seen["oom_score"];
  if (seen.contains("status")) process.status.update(seen["status"]);
  if (!seen.contains("smaps")) return;
  for (const auto& [start, fields] : seen["smaps"].items()) {
    Json entry = Json::object();
    for (const auto& [name, value] : fields.items()) {
      if (name == "referenced" || value == 0) continue;  // Depends on what ran before: not judged.
      if (name != "vm_flags") {
        entry[name] = value;
        continue;
      }
      const std::set<std::string> flags = absl::StrSplit(value.get<std::string>(), ' ', absl::SkipEmpty());
      if (!flags.empty()) entry[name] = flags;
    }
    process.smaps[start] = entry;
  }
}

std::map<std::string, Json> Observer::After(const Recorded& ordered) {
  const Json record = Json::parse(ordered.dump());
  Json result = Json::object();
  for (const char* key : kResultKeys) {
    if (record.contains(key)) result[key] = record[key];
  }
  Json faults = Json::object();
  const Json procs = record.value("procs", Json::object());
  for (const auto& [index, seen] : procs.items()) {
    if (seen.value("exited", false)) {
      processes_.erase(index);
      continue;
    }
    Update(index, seen);
    const Json counted = Json::array({seen.value("minflt_delta", 0), seen.value("majflt_delta", 0)});
    if (counted != Json::array({0, 0})) faults[index] = counted;
  }
  std::map<std::string, Json> view = {{"result", result}, {"commit", record.value("committed_as_delta", 0)}, {"faults", faults}};
  for (const auto& [index, process] : processes_) {
    view["vmas"][index] = Json::array({process.vma_count, process.vmas});
    view["rss"][index] = process.rss;
    view["oom_score"][index] = process.oom_score;
    view["status"][index] = process.status;
    view["smaps"][index] = process.smaps;
  }
  return view;
}

// The first place where two values differ, as "path: recorded A  answered B".
std::string Narrow(const Json& a, const Json& b, const std::string& path) {
  if (a.is_object() && b.is_object()) {
    std::set<std::string> keys;
    for (const auto& [key, value] : a.items()) keys.insert(key);
    for (const auto& [key, value] : b.items()) keys.insert(key);
    for (const std::string& key : keys) {
      const Json left = a.value(key, Json());
      const Json right = b.value(key, Json());
      if (left != right) return Narrow(left, right, absl::StrCat(path, "/", key));
    }
  }
  if (a.is_array() && b.is_array() && a.size() == b.size()) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i] != b[i]) return Narrow(a[i], b[i], absl::StrCat(path, "[", i, "]"));
    }
  }
  return absl::StrCat(path, ": recorded ", a.dump().substr(0, 200), "  answered ", b.dump().substr(0, 200));
}

Comparison Compare(const std::vector<Recorded>& recorded, const std::vector<Recorded>& answered) {
  Comparison comparison;
  std::map<std::string, const Recorded*> answers;
  for (const Recorded& answer : answered) {
    if (answer.contains("step")) answers[answer["step"].dump()] = &answer;
  }
  Observer truth;
  Observer claim;
  for (const Recorded& record : recorded) {
    if (!record.contains("step")) continue;
    auto want = truth.After(record);
    const auto found = answers.find(record["step"].dump());
    auto got = found == answers.end() ? std::map<std::string, Json>() : claim.After(*found->second);
    if (record.value("kind", "") != "step") continue;
    ++comparison.steps;
    if (record.value("content_unspecified", false) && !got.empty()) {
      for (auto* view : {&want, &got}) {
        (*view)["result"].erase("value");
        (*view)["result"].erase("fnv1a64");
      }
    }
    if (want == got) {
      ++comparison.exact;
      continue;
    }
    if (!comparison.first_difference.empty()) continue;
    comparison.first_difference = absl::StrCat("step ", record["step"].dump(), " proc ", record.at("proc").dump(), " ",
                                               record.at("op").get<std::string>(), " ", record.at("args").dump(), "\n");
    for (const auto& [category, value] : want) {
      if (got[category] != value) absl::StrAppend(&comparison.first_difference, "  ", Narrow(value, got[category], category), "\n");
    }
  }
  return comparison;
}

}  // namespace

absl::StatusOr<Comparison> CompareAnswers(const std::vector<Recorded>& recorded, const std::vector<Recorded>& answered) {
  return ReadingRecording([&]() -> absl::StatusOr<Comparison> { return Compare(recorded, answered); });
}

}  // namespace mmlab
