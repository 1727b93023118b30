#include "server/machine/perform_cgroup.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "server/cgroup/cgroups.h"
#include "server/machine/answer.h"
#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

bool Populated(const Processes& processes, uint32_t cgroup) {
  const auto& all = processes.all();
  return std::any_of(all.begin(), all.end(), [cgroup](const auto& entry) { return entry.second->cgroup == cgroup; });
}

// cgroup_procs_write(): the whole process moves; "0" would be the writer itself, which no process of the machine is.
Errno Attach(const Cgroup& cgroup, const std::string& value, Processes& processes) {
  int32_t pid = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(value), &pid) || pid < 0) return Errno::kEINVAL;
  if (processes.Find(Pid(pid)) == nullptr) return Errno::kESRCH;
  // A cgroup whose children have controllers has no processes of its own.
  if (cgroup.id != 0 && cgroup.memory_below) return Errno::kEBUSY;
  return processes.SetCgroup(Pid(pid), cgroup.id);
}

}  // namespace

Outcome PerformCgroup(const op::CreateCgroup& o, Cgroups& cgroups) { return Answer(cgroups.Make(o.cgroup).error()); }

Outcome PerformCgroup(const op::RemoveCgroup& o, Cgroups& cgroups, const Processes& processes) {
  const std::optional<uint32_t> id = cgroups.Find(o.cgroup);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  return Answer(Populated(processes, *id) ? Errno::kEBUSY : cgroups.Remove(o.cgroup));
}

Outcome PerformCgroup(const op::WriteCgroupFile& o, Cgroups& cgroups, Processes& processes) {
  const std::optional<uint32_t> id = cgroups.Find(o.cgroup);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  if (o.file == "cgroup.procs") return Answer(Attach(cgroups.cgroup(*id), o.value, processes));
  CgroupWrite written = cgroups.Write(*id, o.file, o.value, Populated(processes, *id));
  Outcome outcome = Answer(written.error);
  outcome.unimplemented = std::move(written.unimplemented);
  return outcome;
}

}  // namespace mmlab
