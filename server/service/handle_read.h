#ifndef MMLAB_SERVER_SERVICE_HANDLE_READ_H_
#define MMLAB_SERVER_SERVICE_HANDLE_READ_H_

#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/host/errors.h"
#include "server/host/names.h"
#include "server/machine/machine.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/service/call.h"

namespace mmlab {

// A machine to be read, while it stands still.
struct MachineView {
  explicit MachineView(const MachineReader& reader) : hosted(reader.hosted()), machine(reader.machine()), spec(reader.spec()) {}
  explicit MachineView(const MachineLane& lane) : hosted(lane.hosted()), machine(lane.machine()), spec(lane.spec()) {}

  const HostedMachine& hosted;
  const Machine& machine;
  const v1::MachineSpec& spec;
};

// How much a read may cost: kQuick ones are done on the network's thread.
enum class ReadCost : uint8_t { kQuick, kLong };

// Runs `read` on a view; a broken machine that cannot even be read is INTERNAL.
template <typename Read>
absl::Status ReadGuarded(const MachineView& view, Read& read) {
  try {
    return read(view);
  } catch (const std::exception& failure) {
    return InvariantBroken(MachineName(view.hosted.id()), failure.what());
  }
}

// Reads now, beside other readers, or when the lane comes to it if an operation is under way. No thread waits.
template <typename Read>
void ReadAndFinish(const std::shared_ptr<HostedMachine>& machine, const UnaryCall& call, Read read) {
  if (std::optional<MachineReader> reader = machine->TryRead()) {
    const absl::Status status = ReadGuarded(MachineView(*reader), read);
    reader.reset();
    call.Finish(status);
    return;
  }
  FinishInLane(*machine, call, [read = std::move(read)](MachineLane& lane) mutable { return ReadGuarded(MachineView(lane), read); });
}

// The unary handler of every method that reads one machine. `machine_id` is what the request names, or why it is malformed; `read` is an
// absl::Status(const MachineView&) that fills the response.
template <typename Request, typename Read>
grpc::ServerUnaryReactor* HandleRead(const ServiceContext& context, grpc::CallbackServerContext* grpc_context, const Request* request,
                                     const absl::StatusOr<absl::string_view>& machine_id, ReadCost cost, Read read) {
  const UnaryCall call = UnaryCall::Start(context, grpc_context, request);
  if (!machine_id.ok()) {
    call.Finish(machine_id.status());
    return call.reactor();
  }
  absl::StatusOr<std::shared_ptr<HostedMachine>> machine = context.host.Find(*machine_id);
  if (!machine.ok()) {
    call.Finish(machine.status());
  } else if (cost == ReadCost::kQuick) {
    ReadAndFinish(*machine, call, std::move(read));
  } else {
    context.host.pool().Post(
        [machine = *std::move(machine), call, read = std::move(read)]() mutable { ReadAndFinish(machine, call, std::move(read)); });
  }
  return call.reactor();
}

// The same for what is read of one process: `name` is the process that `resource`, a field of the request, names, or why it is malformed;
// `read` is an absl::Status(const MachineView&, const Process&). NOT_FOUND: there is no such process.
template <typename Request, typename Read>
grpc::ServerUnaryReactor* HandleProcessRead(const ServiceContext& context, grpc::CallbackServerContext* grpc_context,
                                            const Request* request, const absl::StatusOr<ProcessName>& name, absl::string_view resource,
                                            ReadCost cost, Read read) {
  const auto machine = name.ok() ? absl::StatusOr<absl::string_view>(name->machine) : name.status();
  const Pid pid(name.ok() ? name->pid : 0);
  return HandleRead(context, grpc_context, request, machine, cost,
                    [pid, resource, read = std::move(read)](const MachineView& view) mutable -> absl::Status {
                      const Process* process = view.machine.processes().Find(pid);
                      if (process == nullptr) return ResourceNotFound("process", resource);
                      return read(view, *process);
                    });
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_HANDLE_READ_H_
