#include "server/service/proc_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/machine/kernel_log.h"
#include "server/machine/machine.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/procfs/meminfo.h"
#include "server/procfs/page_frames.h"
#include "server/procfs/pagemap.h"
#include "server/procfs/procfs.h"
#include "server/service/handle_read.h"
#include "server/service/page_token.h"
#include "server/service/view_converters.h"

namespace mmlab {
namespace {

constexpr size_t kMaxProcPath = 4095;

absl::StatusOr<const Process*> FindProcess(const MachineView& view, int32_t pid) {
  const Process* process = view.machine.processes().Find(Pid(pid));
  if (process == nullptr) return ResourceNotFound("process", ProcessNameOf(view.hosted.id(), pid));
  return process;
}

absl::Status List(const MachineView& view, int32_t pid, const v1::ListProcFilesRequest& request, v1::ListProcFilesResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  const std::string list = absl::StrCat("ListProcFiles ", request.parent());
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(list, request.page_token()));
  if (pid != 0) MMLAB_RETURN_IF_ERROR(FindProcess(view, pid).status());
  std::vector<std::string> paths = pid == 0 ? ListProcFiles(view.machine) : ListProcFiles(view.machine, Pid(pid));
  for (auto it = std::upper_bound(paths.begin(), paths.end(), after); it != paths.end(); ++it) {
    if (static_cast<size_t>(response.paths_size()) == page_size) {
      response.set_next_page_token(MakePageToken(list, *response.paths().rbegin()));
      break;
    }
    response.add_paths(std::move(*it));
  }
  return absl::OkStatus();
}

// mem_read() of fs/proc/page.c takes whole entries only.
absl::Status CheckFrameFileRange(const v1::ReadProcFileRequest& request) {
  if (request.offset_bytes() < 0 || request.offset_bytes() % 8 != 0)
    return InvalidField("offset_bytes", "must be a multiple of 8, not negative");
  if (request.length_bytes() < 0 || request.length_bytes() % 8 != 0)
    return InvalidField("length_bytes", "must be a multiple of 8, not negative");
  if (request.length_bytes() > static_cast<int64_t>(kMaxFrameFileBytes)) return FieldOutOfRange("length_bytes", "must be at most 1 MiB");
  return absl::OkStatus();
}

// `path`: "PID/pagemap".
absl::Status ReadPagemapPart(const MachineView& view, absl::string_view path, const v1::ReadProcFileRequest& request,
                             v1::ReadProcFileResponse& response) {
  int32_t pid = 0;
  const Process* process = nullptr;
  if (absl::SimpleAtoi(path.substr(0, path.size() - sizeof("/pagemap") + 1), &pid)) process = view.machine.processes().Find(Pid(pid));
  if (process == nullptr) return ResourceNotFound("proc_file", request.path());
  const auto length = static_cast<uint64_t>(request.length_bytes());
  response.set_content(
      ReadPagemap(view.machine, *process, static_cast<uint64_t>(request.offset_bytes()), length == 0 ? kMaxFrameFileBytes : length));
  return absl::OkStatus();
}

absl::Status Read(const MachineView& view, const v1::ReadProcFileRequest& request, v1::ReadProcFileResponse& response) {
  if (request.path().empty()) return InvalidField("path", "must be set");
  if (request.path().size() > kMaxProcPath) return InvalidField("path", absl::StrCat("must have at most ", kMaxProcPath, " bytes"));
  absl::string_view path = request.path();
  absl::ConsumePrefix(&path, "/proc/");
  if (IsFrameFile(path)) {
    MMLAB_RETURN_IF_ERROR(CheckFrameFileRange(request));
    const auto length = static_cast<uint64_t>(request.length_bytes());
    response.set_content(
        ReadFrameFile(view.machine, path, static_cast<uint64_t>(request.offset_bytes()), length == 0 ? kMaxFrameFileBytes : length));
    return absl::OkStatus();
  }
  const bool part = request.offset_bytes() != 0 || request.length_bytes() != 0;
  if (part && absl::EndsWith(path, "/pagemap")) {
    MMLAB_RETURN_IF_ERROR(CheckFrameFileRange(request));
    return ReadPagemapPart(view, path, request, response);
  }
  if (part) {
    return InvalidField(request.offset_bytes() != 0 ? "offset_bytes" : "length_bytes",
                        "is for kpageflags, kpagecount, kpagecgroup and PID/pagemap");
  }
  absl::StatusOr<std::string> content = ReadProcFile(view.machine, request.path());
  if (absl::IsNotFound(content.status())) return ResourceNotFound("proc_file", request.path());
  if (absl::IsUnimplemented(content.status())) return NotSimulated(absl::StrCat("/proc/", request.path()));
  MMLAB_RETURN_IF_ERROR(content.status());
  response.set_content(*std::move(content));
  return absl::OkStatus();
}

absl::Status Meminfo(const MachineView& view, v1::GetMeminfoResponse& response) {
  for (const MeminfoField& line : MeminfoFields(view.machine)) {
    v1::MeminfoField* field = response.add_fields();
    field->set_name(std::string(line.name));
    if (line.kilobytes) {
      field->set_bytes(static_cast<int64_t>(line.value * 1024));
    } else {
      field->set_count(static_cast<int64_t>(line.value));
    }
  }
  return absl::OkStatus();
}

absl::Status List(const MachineView& view, int32_t pid, const v1::ListVmAreasRequest& request, v1::ListVmAreasResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  const std::string list = absl::StrCat("ListVmAreas ", request.parent());
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(list, request.page_token()));
  uint64_t last_start = 0;
  if (!after.empty() && !absl::SimpleAtoi(after, &last_start)) return InvalidField("page_token", "must be of this list");
  MMLAB_ASSIGN_OR_RETURN(const Process* process, FindProcess(view, pid));
  if (process->mm == nullptr) return absl::OkStatus();
  const Processes& processes = view.machine.processes();
  const std::vector<VmAreaView> areas = processes.VmAreas(*process);
  std::vector<Smaps> smaps;
  if (request.with_smaps()) smaps = processes.AllSmaps(*process);
  size_t first = 0;
  if (!after.empty()) {
    first = std::upper_bound(areas.begin(), areas.end(), VirtAddr(last_start),
                             [](VirtAddr address, const VmAreaView& area) { return address < area.start; }) -
            areas.begin();
  }
  VmAreasToProto(areas, request.with_smaps() ? &smaps : nullptr, first, page_size, response.mutable_vm_areas());
  if (first + page_size < areas.size()) {
    response.set_next_page_token(MakePageToken(list, absl::StrCat(areas[first + page_size - 1].start.raw())));
  }
  return absl::OkStatus();
}

// Files that cost a walk over VMAs or page tables.
ReadCost CostOf(absl::string_view path) {
  return absl::EndsWith(path, "maps") || absl::StrContains(path, "kpage") || absl::EndsWith(path, "smaps_rollup") ||
                 absl::EndsWith(path, "pagetypeinfo")
             ? ReadCost::kLong
             : ReadCost::kQuick;
}

}  // namespace

ProcService::Reactor* ProcService::ListProcFiles(Context* context, const v1::ListProcFilesRequest* request,
                                                 v1::ListProcFilesResponse* response) {
  // The parent is a machine or a process.
  const absl::StatusOr<ProcessName> process = ParseProcessName("parent", request->parent());
  absl::StatusOr<absl::string_view> machine = ParseMachineName("parent", request->parent());
  if (process.ok()) {
    machine = process->machine;
  } else if (!machine.ok()) {
    machine = InvalidField("parent", "must be \"machines/{machine}\" or \"machines/{machine}/processes/{pid}\"");
  }
  const int32_t pid = process.ok() ? process->pid : 0;
  return HandleRead(context_, context, request, machine, ReadCost::kLong,
                    [request, response, pid](const MachineView& view) { return List(view, pid, *request, *response); });
}

ProcService::Reactor* ProcService::ReadProcFile(Context* context, const v1::ReadProcFileRequest* request,
                                                v1::ReadProcFileResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), CostOf(request->path()),
                    [request, response](const MachineView& view) { return Read(view, *request, *response); });
}

ProcService::Reactor* ProcService::ReadKernelLog(Context* context, const v1::ReadKernelLogRequest* request,
                                                 v1::ReadKernelLogResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kLong,
                    [request, response](const MachineView& view) {
                      const KernelLog& log = view.machine.kernel_log();
                      response->set_content(request->raw() ? log.RawText() : log.Text());
                      response->set_dropped_lines(static_cast<int64_t>(log.dropped()));
                      return absl::OkStatus();
                    });
}

ProcService::Reactor* ProcService::GetMeminfo(Context* context, const v1::GetMeminfoRequest* request, v1::GetMeminfoResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kQuick,
                    [response](const MachineView& view) { return Meminfo(view, *response); });
}

ProcService::Reactor* ProcService::ListVmAreas(Context* context, const v1::ListVmAreasRequest* request, v1::ListVmAreasResponse* response) {
  const absl::StatusOr<ProcessName> name = ParseProcessName("parent", request->parent());
  const auto machine = name.ok() ? absl::StatusOr<absl::string_view>(name->machine) : name.status();
  const int32_t pid = name.ok() ? name->pid : 0;
  return HandleRead(context_, context, request, machine, ReadCost::kLong,
                    [request, response, pid](const MachineView& view) { return List(view, pid, *request, *response); });
}

}  // namespace mmlab
