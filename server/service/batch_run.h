#ifndef MMLAB_SERVER_SERVICE_BATCH_RUN_H_
#define MMLAB_SERVER_SERVICE_BATCH_RUN_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "mmlab/v1/operation.pb.h"
#include "server/host/host.h"

namespace mmlab {

// One batch on its way through its machine's lane, step by step; the same for a batch that comes alone and one of a stream.
class BatchRun {
 public:
  static constexpr int kMaxOperations = 65536;
  // Outcome.data of all operations together: what a client that did not raise its message size can receive.
  static constexpr uint64_t kMaxPromisedData = uint64_t{4} << 20;
  // Steps of explanations in one answer; beyond them steps are only counted.
  static constexpr size_t kMaxExplanationSteps = 16384;

  // The request, the response and the context outlive this.
  BatchRun(const v1::ExecuteBatchRequest& request, v1::ExecuteBatchResponse& response, const grpc::CallbackServerContext& context)
      : request_(request), response_(response), context_(context) {}

  // Checks everything that can be checked before anything is applied, and finds the machine.
  absl::StatusOr<std::shared_ptr<HostedMachine>> Prepare(const Host& host);
  // Few and short operations: a thread of the network may carry them out. REQUIRES: Prepare was OK.
  bool IsShort() const { return short_; }

  // Applies operations until the slice is over. True: finished, status() says how. REQUIRES: Prepare was OK; the same machine each time.
  bool Run(MachineLane& lane);
  // The whole batch without a pause. For short ones.
  void RunToEnd(MachineLane& lane) {
    while (!Run(lane)) {
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status CheckOperations(int cpus) const;
  // True: the answer is there already.
  bool Begin(MachineLane& lane);
  absl::Status ApplyNext(MachineLane& lane);
  void End(MachineLane& lane, absl::Status status);

  const v1::ExecuteBatchRequest& request_;
  v1::ExecuteBatchResponse& response_;
  const grpc::CallbackServerContext& context_;
  bool short_ = false;
  bool begun_ = false;
  int cpus_ = 0;  // Of the machine when the operations were checked.
  int next_ = 0;
  size_t steps_left_ = kMaxExplanationSteps;
  uint64_t fingerprint_ = 0;
  absl::Status status_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_BATCH_RUN_H_
