#ifndef MMLAB_SERVER_HOST_RPC_OBSERVER_H_
#define MMLAB_SERVER_HOST_RPC_OBSERVER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace mmlab {

enum class RpcType : uint8_t { kUnary, kClientStream, kServerStream, kBidiStream };

struct RpcMethod {
  absl::string_view service;  // "mmlab.v1.ProcessService"; lives as long as the process.
  absl::string_view method;   // "Mmap".
  RpcType type = RpcType::kUnary;
};

// Hears of every call of the service, to count and time it. The service calls, the metrics room implements; neither knows the other.
//
// Always true: every Started is followed by exactly one Handled of the same method. Called from many threads at once, on the path of every
// call: implementations must be quick and must not block.
class RpcObserver {
 public:
  virtual ~RpcObserver() = default;

  // Every method that is offered, once, before the first call. `method` below is an index into it.
  virtual void SetMethods(const std::vector<RpcMethod>& methods) = 0;

  virtual void Started(size_t method) = 0;
  virtual void MessageReceived(size_t method) = 0;
  virtual void MessageSent(size_t method) = 0;
  // The numbers of absl::StatusCode are gRPC's.
  virtual void Handled(size_t method, absl::StatusCode code, absl::Duration handling_time) = 0;

  // A batch with so many operations arrived, alone or in a stream.
  virtual void BatchReceived(size_t operations) = 0;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_RPC_OBSERVER_H_
