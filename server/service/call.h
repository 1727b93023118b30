#ifndef MMLAB_SERVER_SERVICE_CALL_H_
#define MMLAB_SERVER_SERVICE_CALL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/host/errors.h"
#include "server/host/host.h"
#include "server/host/rpc_observer.h"
#include "server/service/rpc_methods.h"
#include "server/service/status_bridge.h"

namespace mmlab {

// What all handlers share.
struct ServiceContext {
  Host& host;
  RpcObserver* observer = nullptr;  // Null: nobody listens.
};

// Tells the observer of one call from its arrival to its end. Every call of every method passes through here.
class ObservedCall {
 public:
  ObservedCall(const ServiceContext& context, size_t method) : observer_(context.observer), method_(method) {
    if (observer_ == nullptr) return;
    start_nanos_ = absl::GetCurrentTimeNanos();
    observer_->Started(method_);
  }

  void MessageReceived() const {
    if (observer_ != nullptr) observer_->MessageReceived(method_);
  }
  void MessageSent() const {
    if (observer_ != nullptr) observer_->MessageSent(method_);
  }
  void BatchReceived(size_t operations) const {
    if (observer_ != nullptr) observer_->BatchReceived(operations);
  }
  // Once.
  void Handled(absl::StatusCode code) const {
    if (observer_ != nullptr) observer_->Handled(method_, code, absl::Nanoseconds(absl::GetCurrentTimeNanos() - start_nanos_));
  }

 private:
  RpcObserver* observer_;
  size_t method_;
  int64_t start_nanos_ = 0;
};

// A unary call on its way to its answer. Cheap to copy; the request, the response and the context live until Finish.
class UnaryCall {
 public:
  template <typename Request>
  static UnaryCall Start(const ServiceContext& context, grpc::CallbackServerContext* grpc_context, const Request*) {
    UnaryCall call(ObservedCall(context, MethodOf<Request>()), grpc_context);
    call.observed_.MessageReceived();
    return call;
  }

  grpc::ServerUnaryReactor* reactor() const { return reactor_; }
  const grpc::CallbackServerContext& grpc_context() const { return *grpc_context_; }
  const ObservedCall& observed() const { return observed_; }

  // Exactly once, as the last thing that is done for the call.
  void Finish(const absl::Status& status) const {
    if (status.ok()) observed_.MessageSent();
    observed_.Handled(status.code());
    reactor_->Finish(ToGrpcStatus(status));
  }

 private:
  UnaryCall(ObservedCall observed, grpc::CallbackServerContext* grpc_context)
      : observed_(observed), grpc_context_(grpc_context), reactor_(grpc_context->DefaultReactor()) {}

  ObservedCall observed_;
  grpc::CallbackServerContext* grpc_context_;
  grpc::ServerUnaryReactor* reactor_;
};

// Does `work`, an absl::Status(MachineLane&), when the machine's lane comes to it, and then answers the call with what it returns.
template <typename Work>
void FinishInLane(HostedMachine& machine, const UnaryCall& call, Work work) {
  class Waiting final : public LaneWork {
   public:
    Waiting(const UnaryCall& waiting_call, Work to_do) : call_(waiting_call), work_(std::move(to_do)) {}
    ~Waiting() override { call_.Finish(status_); }
    bool Run(MachineLane& lane) override {
      status_ = work_(lane);
      return true;
    }

   private:
    const UnaryCall call_;
    Work work_;
    absl::Status status_ = ShuttingDown();
  };
  machine.Submit(std::make_unique<Waiting>(call, std::move(work)));
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_CALL_H_
