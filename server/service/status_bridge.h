#ifndef MMLAB_SERVER_SERVICE_STATUS_BRIDGE_H_
#define MMLAB_SERVER_SERVICE_STATUS_BRIDGE_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace mmlab {

// The one bridge from our statuses to gRPC's: the payloads become the details of a google.rpc.Status (grpc-status-details-bin). A status
// without ErrorInfo gets one, with its code's name as the reason, so that every error carries one.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_STATUS_BRIDGE_H_
