#include "server/service/process_service.h"

#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/machine/machine.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/service/handle_read.h"
#include "server/service/page_token.h"
#include "server/service/view_converters.h"

namespace mmlab {
namespace {

constexpr size_t kMaxPageBytes = size_t{2} << 20;  // A page of a list ends here even if fewer elements than wished fit.

absl::Status CheckView(v1::ProcessView view) {
  if (!v1::ProcessView_IsValid(view)) return InvalidField("view", "must be a value of ProcessView");
  return absl::OkStatus();
}

// VMAs can be many, and FULL walks page tables.
ReadCost CostOf(v1::ProcessView view) {
  return view == v1::PROCESS_VIEW_UNSPECIFIED || view == v1::PROCESS_VIEW_BASIC ? ReadCost::kQuick : ReadCost::kLong;
}

absl::Status List(const MachineView& view, const v1::ListProcessesRequest& request, v1::ListProcessesResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  const std::string list = absl::StrCat("ListProcesses ", request.parent(), " ", request.view());
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(list, request.page_token()));
  int32_t last = 0;
  if (!after.empty() && !absl::SimpleAtoi(after, &last)) return InvalidField("page_token", "must be of this list");
  const auto& all = view.machine.processes().all();
  size_t bytes = 0;
  for (auto it = all.upper_bound(Pid(last)); it != all.end(); ++it) {
    if (static_cast<size_t>(response.processes_size()) == page_size || bytes > kMaxPageBytes) {
      response.set_next_page_token(MakePageToken(list, absl::StrCat(last)));
      break;
    }
    v1::Process* process = response.add_processes();
    ProcessToProto(view, *it->second, request.view(), process);
    bytes += process->ByteSizeLong();
    last = it->first.raw();
  }
  return absl::OkStatus();
}

}  // namespace

ProcessService::Reactor* ProcessService::GetProcess(Context* context, const v1::GetProcessRequest* request,
                                                    v1::GetProcessResponse* response) {
  const auto parse = [&]() -> absl::StatusOr<ProcessName> {
    MMLAB_RETURN_IF_ERROR(CheckView(request->view()));
    return ParseProcessName("name", request->name());
  };
  return HandleProcessRead(context_, context, request, parse(), request->name(), CostOf(request->view()),
                           [request, response](const MachineView& view, const Process& process) -> absl::Status {
                             ProcessToProto(view, process, request->view(), response->mutable_process());
                             return absl::OkStatus();
                           });
}

ProcessService::Reactor* ProcessService::ListProcesses(Context* context, const v1::ListProcessesRequest* request,
                                                       v1::ListProcessesResponse* response) {
  const auto parse = [&]() -> absl::StatusOr<absl::string_view> {
    MMLAB_RETURN_IF_ERROR(CheckView(request->view()));
    return ParseMachineName("parent", request->parent());
  };
  return HandleRead(context_, context, request, parse(), ReadCost::kLong,
                    [request, response](const MachineView& view) { return List(view, *request, *response); });
}

}  // namespace mmlab
