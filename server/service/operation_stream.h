#ifndef MMLAB_SERVER_SERVICE_OPERATION_STREAM_H_
#define MMLAB_SERVER_SERVICE_OPERATION_STREAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/arena.h"
#include "grpcpp/support/server_callback.h"
#include "mmlab/v1/operation.pb.h"
#include "server/service/batch_run.h"
#include "server/service/call.h"

namespace mmlab {

// One OperationService.Execute stream: batches are carried out in the order of their arrival, one at a time, while the next ones are read
// and the previous answers written.
//
// Always true: at most kSlots batches are held, and no further one is read while they take kMaxHeldBytes; at most one read and one write
// are outstanding; answers leave in order. A client that does not read its answers is not read from any more.
class OperationStream final : public grpc::ServerBidiReactor<v1::ExecuteRequest, v1::ExecuteResponse> {
 public:
  // The stream belongs to itself and ends with OnDone.
  static OperationStream* Start(const ServiceContext& context, grpc::CallbackServerContext* grpc_context);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  static constexpr uint64_t kSlots = 8;
  static constexpr uint64_t kMaxHeldBytes = uint64_t{4} << 20;

  // A batch from its reading to the writing of its answer. Slots are used in turn: the n-th batch lies in slot n % kSlots.
  struct Slot {
    Slot();
    void Clear();

    google::protobuf::Arena arena;
    v1::ExecuteRequest* request = nullptr;
    v1::ExecuteResponse* response = nullptr;
    std::optional<BatchRun> run;
    uint64_t bytes = 0;  // What the arena held when the batch was read, and then when it was carried out.
  };
  class Work;

  OperationStream(const ServiceContext& context, grpc::CallbackServerContext* grpc_context);

  Slot& SlotOf(uint64_t batch) { return slots_[batch % kSlots]; }
  bool MayReadLocked() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Starts whatever can be started now.
  void Advance() ABSL_LOCKS_EXCLUDED(mutex_);
  void StartTransfersLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Carries out the next batch, or hands it to its machine's lane: then false, and Work goes on.
  bool RunNext(Slot& slot) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndRun(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  const ServiceContext& context_;
  grpc::CallbackServerContext& grpc_context_;
  const ObservedCall observed_;
  std::shared_ptr<OperationStream> self_;  // Until OnDone.

  absl::Mutex mutex_;
  std::array<Slot, kSlots> slots_;
  // How many batches were read, carried out and answered. written_ <= run_ <= read_ <= written_ + kSlots.
  uint64_t read_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t run_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t written_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool reads_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // Why no further batch is carried out.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_OPERATION_STREAM_H_
