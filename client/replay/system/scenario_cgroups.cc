#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/replay/system/scenario_player_state.h"
#include "server/base/status_macros.h"

// Control groups of a scenario; its script has them below /cg.

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kEexist = 17;
constexpr const char* kCgroupFiles[] = {"cgroup.procs",       "memory.current",  "memory.events", "memory.events.local",
                                        "memory.high",        "memory.low",      "memory.max",    "memory.min",
                                        "memory.peak",        "memory.pressure", "memory.stat",   "memory.swap.current",
                                        "memory.swap.events", "memory.swap.max"};

// Paths become names of files, and the hierarchy is not deep.
absl::Status CheckPath(const std::string& cgroup) {
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(cgroup, '/'))) {
    const bool plain = part.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == std::string::npos;
    if (!plain || part.empty()) return absl::InvalidArgumentError(absl::StrCat("cgroup: no path of names: ", cgroup));
  }
  return absl::OkStatus();
}

// Controllers other than memory's change nothing of what is looked at.
std::string WithoutOtherControllers(const std::string& value) {
  constexpr const char* kOthers[] = {"cpu", "cpuset", "io", "misc", "pids", "rdma"};
  std::vector<absl::string_view> left;
  for (absl::string_view word : absl::StrSplit(value, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    const absl::string_view name = word.substr(1);
    if (std::none_of(std::begin(kOthers), std::end(kOthers), [&](const char* other) { return name == other; })) left.push_back(word);
  }
  return absl::StrJoin(left, " ");
}

}  // namespace

absl::Status ScenarioPlayer::MakeCgroup(const std::string& cgroup) {
  if (cgroup.empty()) return absl::OkStatus();
  MMLAB_RETURN_IF_ERROR(CheckPath(cgroup));
  if (const size_t slash = cgroup.rfind('/'); slash != std::string::npos) MMLAB_RETURN_IF_ERROR(MakeCgroup(cgroup.substr(0, slash)));
  v1::Operation make;
  make.mutable_create_cgroup()->set_cgroup(cgroup);
  MMLAB_ASSIGN_OR_RETURN(const Tried tried, Try("mkdir of a cgroup", make));
  if (!tried.ok() && tried.outcome.error_number() != kEexist) {
    return absl::InternalError(absl::StrCat("cgroup ", cgroup, ": ", tried.ErrorText()));
  }
  return absl::OkStatus();
}

absl::StatusOr<ScenarioPlayer::Tried> ScenarioPlayer::WriteCgroupFile(const std::string& cgroup, const std::string& file,
                                                                      const std::string& value) {
  v1::Operation write;
  write.mutable_write_cgroup_file()->set_cgroup(cgroup);
  write.mutable_write_cgroup_file()->set_file(file);
  write.mutable_write_cgroup_file()->set_value(file == "cgroup.subtree_control" ? WithoutOtherControllers(value) : value);
  return Try(absl::StrCat("write of ", file), write);
}

absl::Status ScenarioPlayer::SnapshotCgroup(const Json& op) {
  const std::string cgroup = op.at("cgroup");
  if (!cgroup.empty()) MMLAB_RETURN_IF_ERROR(CheckPath(cgroup));
  const std::string prefix = absl::StrCat(op.at("name").get<std::string>(), "/cgroup-", absl::StrReplaceAll(cgroup, {{"/", "+"}}), "-");
  const std::string folder = absl::StrCat("/sys/fs/cgroup", cgroup.empty() ? "" : "/", cgroup, "/");
  for (const char* file : kCgroupFiles) MMLAB_RETURN_IF_ERROR(AddProcFile(absl::StrCat(folder, file), absl::StrCat(prefix, file)));
  return absl::OkStatus();
}

}  // namespace mmlab
