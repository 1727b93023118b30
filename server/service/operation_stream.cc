#include "server/service/operation_stream.h"

#include <utility>

namespace mmlab {
namespace {

google::protobuf::ArenaOptions BatchArena() {
  google::protobuf::ArenaOptions options;
  options.start_block_size = 4096;
  options.max_block_size = 256 * 1024;  // A batch of thousands of operations in a handful of allocations.
  return options;
}

}  // namespace

// A batch that waits in its machine's lane.
class OperationStream::Work final : public LaneWork {
 public:
  Work(std::shared_ptr<OperationStream> stream, BatchRun& run) : stream_(std::move(stream)), run_(run) {}
  ~Work() override {
    stream_->EndRun(run_.status());
    stream_->Advance();
  }
  bool Run(MachineLane& lane) override { return run_.Run(lane); }

 private:
  const std::shared_ptr<OperationStream> stream_;
  BatchRun& run_;
};

OperationStream::Slot::Slot() : arena(BatchArena()) {}

void OperationStream::Slot::Clear() {
  run.reset();
  arena.Reset();
  request = google::protobuf::Arena::CreateMessage<v1::ExecuteRequest>(&arena);
  response = google::protobuf::Arena::CreateMessage<v1::ExecuteResponse>(&arena);
}

OperationStream* OperationStream::Start(const ServiceContext& context, grpc::CallbackServerContext* grpc_context) {
  std::shared_ptr<OperationStream> stream(new OperationStream(context, grpc_context));
  stream->self_ = stream;
  stream->Advance();
  return stream.get();
}

OperationStream::OperationStream(const ServiceContext& context, grpc::CallbackServerContext* grpc_context)
    : context_(context), grpc_context_(*grpc_context), observed_(context, MethodOf<v1::ExecuteRequest>()) {}

void OperationStream::OnReadDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    if (ok) {
      SlotOf(read_).bytes = SlotOf(read_).arena.SpaceUsed();
      ++read_;
    } else {
      reads_done_ = true;
    }
  }
  if (ok) observed_.MessageReceived();
  Advance();
}

void OperationStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    ++written_;
    if (!ok && failure_.ok()) failure_ = absl::CancelledError("the client is gone");
  }
  if (ok) observed_.MessageSent();
  Advance();
}

void OperationStream::OnDone() {
  const std::shared_ptr<OperationStream> last = std::move(self_);  // Deletes this, unless a lane still holds it.
}

bool OperationStream::MayReadLocked() const {
  if (reading_ || reads_done_ || !failure_.ok() || read_ - written_ >= kSlots) return false;
  uint64_t held = 0;
  for (uint64_t batch = written_; batch < read_; ++batch) held += slots_[batch % kSlots].bytes;
  return held < kMaxHeldBytes;
}

void OperationStream::StartTransfersLocked() {
  if (MayReadLocked()) {
    reading_ = true;
    Slot& slot = SlotOf(read_);
    slot.Clear();
    StartRead(slot.request);
  }
  if (!writing_ && written_ < run_) {
    writing_ = true;
    StartWrite(SlotOf(written_).response);
  }
  const bool all_answered = !running_ && !writing_ && written_ == run_;
  if (!finished_ && all_answered && (!failure_.ok() || (reads_done_ && run_ == read_))) {
    finished_ = true;
    observed_.Handled(failure_.code());
    Finish(ToGrpcStatus(failure_));
  }
}

void OperationStream::Advance() {
  for (;;) {
    Slot* slot = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (failure_.ok() && !running_ && run_ < read_) {
        if (grpc_context_.IsCancelled()) {
          failure_ = absl::CancelledError("cancelled between two batches");
        } else {
          running_ = true;
          slot = &SlotOf(run_);
        }
      }
      StartTransfersLocked();
    }
    if (slot == nullptr || !RunNext(*slot)) return;
  }
}

bool OperationStream::RunNext(Slot& slot) {
  const v1::ExecuteBatchRequest& request = slot.request->batch();
  observed_.BatchReceived(request.operations_size());
  BatchRun& run = slot.run.emplace(request, *slot.response->mutable_batch(), grpc_context_);
  const absl::StatusOr<std::shared_ptr<HostedMachine>> machine = run.Prepare(context_.host);
  if (!machine.ok()) {
    EndRun(machine.status());
    return true;
  }
  if (run.IsShort()) {
    if (std::optional<MachineLane> lane = (*machine)->TryEnter()) {
      run.RunToEnd(*lane);
      lane.reset();
      EndRun(run.status());
      return true;
    }
  }
  (*machine)->Submit(std::make_unique<Work>(self_, run));
  return false;
}

void OperationStream::EndRun(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  running_ = false;
  if (!status.ok()) {
    failure_ = status;
    return;
  }
  SlotOf(run_).bytes = SlotOf(run_).arena.SpaceUsed();
  ++run_;
}

}  // namespace mmlab
