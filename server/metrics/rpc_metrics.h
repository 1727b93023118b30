#ifndef MMLAB_SERVER_METRICS_RPC_METRICS_H_
#define MMLAB_SERVER_METRICS_RPC_METRICS_H_

#include <memory>
#include <vector>

#include "server/host/rpc_observer.h"
#include "server/metrics/exposition.h"
#include "server/metrics/thread_counters.h"

namespace mmlab {

// grpc_server_*, with the names, types and labels of go-grpc-middleware, and mmlab_batch_operations. Counting takes no lock.
class RpcMetrics : public RpcObserver {
 public:
  void SetMethods(const std::vector<RpcMethod>& methods) override;
  void Started(size_t method) override;
  void MessageReceived(size_t method) override;
  void MessageSent(size_t method) override;
  void Handled(size_t method, absl::StatusCode code, absl::Duration handling_time) override;
  void BatchReceived(size_t operations) override;

  // Every method is there from the start, with 0. Nothing before SetMethods.
  Families Collect() const;

 private:
  std::vector<RpcMethod> methods_;
  std::unique_ptr<ThreadCounters> counters_;  // Null until SetMethods.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_RPC_METRICS_H_
