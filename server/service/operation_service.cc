#include "server/service/operation_service.h"

#include <memory>
#include <optional>
#include <utility>

#include "google/protobuf/arena.h"
#include "grpcpp/support/message_allocator.h"
#include "server/service/batch_run.h"
#include "server/service/operation_stream.h"

namespace mmlab {
namespace {

// A batch's messages in an arena: thousands of small objects in a handful of allocations, and freed in none.
class BatchMessages final : public grpc::MessageHolder<v1::ExecuteBatchRequest, v1::ExecuteBatchResponse> {
 public:
  BatchMessages() {
    set_request(google::protobuf::Arena::CreateMessage<v1::ExecuteBatchRequest>(&arena_));
    set_response(google::protobuf::Arena::CreateMessage<v1::ExecuteBatchResponse>(&arena_));
  }
  void Release() override { delete this; }

 private:
  google::protobuf::Arena arena_;
};

class BatchAllocator final : public grpc::MessageAllocator<v1::ExecuteBatchRequest, v1::ExecuteBatchResponse> {
 public:
  grpc::MessageHolder<v1::ExecuteBatchRequest, v1::ExecuteBatchResponse>* AllocateMessages() override { return new BatchMessages; }
};

BatchAllocator& TheBatchAllocator() {
  static auto* const allocator = new BatchAllocator;
  return *allocator;
}

class BatchWork final : public LaneWork {
 public:
  BatchWork(const UnaryCall& call, const BatchRun& run) : call_(call), run_(run) {}
  ~BatchWork() override { call_.Finish(run_.status()); }
  bool Run(MachineLane& lane) override { return run_.Run(lane); }

 private:
  const UnaryCall call_;
  BatchRun run_;
};

}  // namespace

OperationService::OperationService(const ServiceContext& context) : context_(context) {
  SetMessageAllocatorFor_ExecuteBatch(&TheBatchAllocator());
}

grpc::ServerUnaryReactor* OperationService::ExecuteBatch(grpc::CallbackServerContext* context, const v1::ExecuteBatchRequest* request,
                                                         v1::ExecuteBatchResponse* response) {
  const UnaryCall call = UnaryCall::Start(context_, context, request);
  call.observed().BatchReceived(request->operations_size());
  BatchRun run(*request, *response, *context);
  const absl::StatusOr<std::shared_ptr<HostedMachine>> machine = run.Prepare(context_.host);
  if (!machine.ok()) {
    call.Finish(machine.status());
    return call.reactor();
  }
  if (run.IsShort()) {
    if (std::optional<MachineLane> lane = (*machine)->TryEnter()) {
      run.RunToEnd(*lane);
      lane.reset();
      call.Finish(run.status());
      return call.reactor();
    }
  }
  (*machine)->Submit(std::make_unique<BatchWork>(call, run));
  return call.reactor();
}

grpc::ServerBidiReactor<v1::ExecuteRequest, v1::ExecuteResponse>* OperationService::Execute(grpc::CallbackServerContext* context) {
  return OperationStream::Start(context_, context);
}

}  // namespace mmlab
