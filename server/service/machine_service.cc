#include "server/service/machine_service.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/host/names.h"
#include "server/host/presets.h"
#include "server/service/handle_read.h"
#include "server/service/page_token.h"
#include "server/service/view_converters.h"

namespace mmlab {
namespace {

constexpr size_t kMaxPageBytes = size_t{2} << 20;  // A page of a list ends here even if fewer elements than wished fit.

// Answers an RPC whose work is remembered by its request id: `work` fills the response, and so does the memory of an earlier call.
template <typename Request, typename Response, typename Work>
absl::Status OnceForHost(Host& host, const Request& request, Response& response, Work work) {
  MMLAB_RETURN_IF_ERROR(CheckRequestId("request_id", request.request_id()));
  const uint64_t fingerprint = request.request_id().empty() ? 0 : RequestFingerprint(request);
  bool filled = false;
  const RequestIds::Answer answer = host.Once(request.request_id(), fingerprint, [&]() -> RequestIds::Answer {
    filled = true;
    absl::Status status = work();
    if (!status.ok() || request.request_id().empty()) return {std::move(status), {}};
    return {std::move(status), response.SerializeAsString()};
  });
  if (!filled && answer.status.ok()) response.ParseFromString(answer.response);
  return answer.status;
}

absl::Status Create(Host& host, const v1::CreateMachineRequest& request, v1::CreateMachineResponse& response) {
  Host::Description description{request.machine_id(), &request.spec(), {request.labels().begin(), request.labels().end()}};
  MMLAB_ASSIGN_OR_RETURN(const std::shared_ptr<HostedMachine> machine,
                         request.validate_only() ? host.Rehearse(description) : host.Create(description));
  MachineToProto(MachineView(machine->Read()), MachineDetail::kComplete, response.mutable_machine());
  return absl::OkStatus();
}

// In the machine's lane.
absl::Status BootAnew(const Host& host, MachineLane& lane, const v1::BootMachineRequest& request, v1::BootMachineResponse& response) {
  if (lane.hosted().deleted()) return lane.CheckUsable();
  const bool remembered = !request.request_id().empty();
  const uint64_t fingerprint = remembered ? RequestFingerprint(request) : 0;
  if (remembered) {
    if (std::optional<absl::Status> answer = AnswerFromMemory(lane, request.request_id(), fingerprint, response)) return *answer;
  }
  absl::StatusOr<Host::Booted> booted = host.Boot(lane.hosted().id(), request.has_spec() ? request.spec() : lane.spec());
  if (!booted.ok()) return InField("spec", booted.status());
  lane.Replace(std::move(booted->machine), std::move(booted->spec));
  MachineToProto(MachineView(lane), MachineDetail::kComplete, response.mutable_machine());
  if (remembered) lane.request_ids().Remember(request.request_id(), fingerprint, {absl::OkStatus(), response.SerializeAsString()});
  return absl::OkStatus();
}

absl::Status List(const Host& host, const v1::ListMachinesRequest& request, v1::ListMachinesResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken("ListMachines", request.page_token()));
  const std::vector<std::shared_ptr<HostedMachine>> machines = host.List(after, page_size + 1);
  size_t bytes = 0;
  for (size_t i = 0; i < machines.size(); ++i) {
    if (i == page_size || bytes > kMaxPageBytes) {
      response.set_next_page_token(MakePageToken("ListMachines", machines[i - 1]->id()));
      break;
    }
    v1::Machine* machine = response.add_machines();
    MachineToProto(MachineView(machines[i]->Read()), MachineDetail::kShort, machine);
    bytes += machine->ByteSizeLong();
  }
  return absl::OkStatus();
}

absl::Status List(const Presets& presets, const v1::ListPresetsRequest& request, v1::ListPresetsResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken("ListPresets", request.page_token()));
  for (auto it = presets.all().upper_bound(after); it != presets.all().end(); ++it) {
    if (static_cast<size_t>(response.presets_size()) == page_size) {
      response.set_next_page_token(MakePageToken("ListPresets", response.presets().rbegin()->name()));
      break;
    }
    v1::Preset* preset = response.add_presets();
    preset->set_name(it->first);
    *preset->mutable_spec() = it->second;
  }
  return absl::OkStatus();
}

// Carries out on a worker thread what reads or makes many machines.
template <typename Request, typename Work>
grpc::ServerUnaryReactor* HandleOnWorker(const ServiceContext& context, grpc::CallbackServerContext* grpc_context, const Request* request,
                                         Work work) {
  const UnaryCall call = UnaryCall::Start(context, grpc_context, request);
  context.host.pool().Post([call, work = std::move(work)]() mutable { call.Finish(work()); });
  return call.reactor();
}

}  // namespace

MachineService::Reactor* MachineService::CreateMachine(Context* context, const v1::CreateMachineRequest* request,
                                                       v1::CreateMachineResponse* response) {
  return HandleOnWorker(context_, context, request, [this, request, response]() -> absl::Status {
    return OnceForHost(context_.host, *request, *response, [&] { return Create(context_.host, *request, *response); });
  });
}

MachineService::Reactor* MachineService::GetMachine(Context* context, const v1::GetMachineRequest* request,
                                                    v1::GetMachineResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("name", request->name()), ReadCost::kLong,
                    [response](const MachineView& view) {
                      MachineToProto(view, MachineDetail::kFull, response->mutable_machine());
                      return absl::OkStatus();
                    });
}

MachineService::Reactor* MachineService::ListMachines(Context* context, const v1::ListMachinesRequest* request,
                                                      v1::ListMachinesResponse* response) {
  return HandleOnWorker(context_, context, request, [this, request, response] { return List(context_.host, *request, *response); });
}

MachineService::Reactor* MachineService::DeleteMachine(Context* context, const v1::DeleteMachineRequest* request,
                                                       v1::DeleteMachineResponse* response) {
  return HandleOnWorker(context_, context, request, [this, request, response]() -> absl::Status {
    return OnceForHost(context_.host, *request, *response, [&]() -> absl::Status {
      MMLAB_ASSIGN_OR_RETURN(const absl::string_view id, ParseMachineName("name", request->name()));
      return context_.host.Delete(id);
    });
  });
}

MachineService::Reactor* MachineService::BootMachine(Context* context, const v1::BootMachineRequest* request,
                                                     v1::BootMachineResponse* response) {
  const UnaryCall call = UnaryCall::Start(context_, context, request);
  const auto find = [&]() -> absl::StatusOr<std::shared_ptr<HostedMachine>> {
    MMLAB_ASSIGN_OR_RETURN(const absl::string_view id, ParseMachineName("name", request->name()));
    MMLAB_RETURN_IF_ERROR(CheckRequestId("request_id", request->request_id()));
    return context_.host.Find(id);
  };
  const absl::StatusOr<std::shared_ptr<HostedMachine>> machine = find();
  if (!machine.ok()) {
    call.Finish(machine.status());
    return call.reactor();
  }
  FinishInLane(**machine, call,
               [this, request, response](MachineLane& lane) { return BootAnew(context_.host, lane, *request, *response); });
  return call.reactor();
}

MachineService::Reactor* MachineService::ListPresets(Context* context, const v1::ListPresetsRequest* request,
                                                     v1::ListPresetsResponse* response) {
  return HandleOnWorker(context_, context, request,
                        [this, request, response] { return List(context_.host.presets(), *request, *response); });
}

MachineService::Reactor* MachineService::CheckMachine(Context* context, const v1::CheckMachineRequest* request,
                                                      v1::CheckMachineResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("name", request->name()), ReadCost::kLong,
                    [response](const MachineView& view) {
                      for (std::string& violation : view.machine.CheckInvariants()) response->add_violations(std::move(violation));
                      response->set_state_hash(view.machine.StateHash());
                      return absl::OkStatus();
                    });
}

}  // namespace mmlab
