#include "server/service/cgroup_service.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/status_macros.h"
#include "server/cgroup/cgroups.h"
#include "server/host/errors.h"
#include "server/machine/machine.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/service/handle_read.h"
#include "server/service/operation_converters.h"
#include "server/service/page_token.h"

namespace mmlab {
namespace {

constexpr size_t kMostPath = 4095;
constexpr size_t kMostFile = 255;
constexpr size_t kMostPids = 10000;  // Of one cgroup in one answer.

absl::Status CheckPath(absl::string_view path, bool root_too) {
  if (path.empty() && !root_too) return InvalidField("cgroup", "must be set");
  if (path.size() > kMostPath) return InvalidField("cgroup", absl::StrCat("must have at most ", kMostPath, " bytes"));
  if (path.find('\0') != absl::string_view::npos) return InvalidField("cgroup", "must not hold a zero byte");
  return absl::OkStatus();
}

void CgroupToProto(const Machine& machine, uint32_t id, v1::Cgroup* proto) {
  const Cgroups& cgroups = machine.cgroups();
  proto->set_path(cgroups.PathOf(id).substr(1));
  for (const auto& [pid, process] : machine.processes().all()) {
    if (process->cgroup != id || !process->leads()) continue;
    if (static_cast<size_t>(proto->pids_size()) == kMostPids) break;
    proto->add_pids(pid.raw());
  }
  proto->set_inode(cgroups.cgroup(id).inode);
  if (!cgroups.cgroup(id).memory) return;
  proto->set_memory_controller(true);
  const Memcg& memcg = cgroups.memcg(cgroups.cgroup(id).memcg);
  const int shift = machine.layout().page_size.shift();
  const auto bytes = [shift](uint64_t pages) { return static_cast<int64_t>(pages << shift); };
  proto->set_current_bytes(bytes(memcg.memory.usage));
  proto->set_peak_bytes(bytes(memcg.memory.watermark));
  proto->set_swap_current_bytes(bytes(memcg.swap.usage));
  proto->set_min_bytes(bytes(memcg.memory.min));
  proto->set_low_bytes(bytes(memcg.memory.low));
  if (memcg.memory.high != cgroups.no_limit()) proto->set_high_bytes(bytes(memcg.memory.high));
  if (memcg.memory.max != cgroups.no_limit()) proto->set_max_bytes(bytes(memcg.memory.max));
  if (memcg.swap.max != cgroups.no_limit()) proto->set_swap_max_bytes(bytes(memcg.swap.max));
  proto->set_oom_kills(static_cast<int64_t>(memcg.events[static_cast<size_t>(MemcgEvent::kOomKill)]));
}

absl::Status List(const MachineView& view, const v1::ListCgroupsRequest& request, v1::ListCgroupsResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  const std::string list = absl::StrCat("ListCgroups ", request.parent());
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(list, request.page_token()));
  size_t next = 0;
  if (!after.empty() && !absl::SimpleAtoi(after, &next)) return InvalidField("page_token", "must be of this list");
  const std::vector<uint32_t> all = view.machine.cgroups().All();
  for (; next < all.size(); ++next) {
    if (static_cast<size_t>(response.cgroups_size()) == page_size) {
      response.set_next_page_token(MakePageToken(list, absl::StrCat(next)));
      break;
    }
    CgroupToProto(view.machine, all[next], response.add_cgroups());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckFields(const v1::CreateCgroupRequest& request) { return CheckPath(request.cgroup(), false); }
absl::Status CheckFields(const v1::RemoveCgroupRequest& request) { return CheckPath(request.cgroup(), false); }
absl::Status CheckFields(const v1::WriteCgroupFileRequest& request) {
  MMLAB_RETURN_IF_ERROR(CheckPath(request.cgroup(), true));
  if (request.file().empty() || request.file().size() > kMostFile) {
    return InvalidField("file", absl::StrCat("must have 1 to ", kMostFile, " bytes"));
  }
  if (request.value().size() > kMostPath) return InvalidField("value", absl::StrCat("must have at most ", kMostPath, " bytes"));
  return absl::OkStatus();
}

op::CreateCgroup ToNative(const v1::CreateCgroupRequest& r) { return {r.cgroup()}; }
op::RemoveCgroup ToNative(const v1::RemoveCgroupRequest& r) { return {r.cgroup()}; }
op::WriteCgroupFile ToNative(const v1::WriteCgroupFileRequest& r) { return {r.cgroup(), r.file(), r.value()}; }

CgroupService::Reactor* CgroupService::ListCgroups(Context* context, const v1::ListCgroupsRequest* request,
                                                   v1::ListCgroupsResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("parent", request->parent()), ReadCost::kLong,
                    [request, response](const MachineView& view) { return List(view, *request, *response); });
}

}  // namespace mmlab
