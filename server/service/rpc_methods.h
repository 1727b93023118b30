#ifndef MMLAB_SERVER_SERVICE_RPC_METHODS_H_
#define MMLAB_SERVER_SERVICE_RPC_METHODS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "server/host/rpc_observer.h"

namespace mmlab {

// All methods of our services, in the order of the .proto files; their index is the number that RpcObserver knows them by.
const std::vector<RpcMethod>& RpcMethods();

// Full names of our services: "mmlab.v1.FileService", ...
const std::vector<std::string>& RpcServices();

// The method that takes these requests (each method has a request message of its own).
size_t MethodOf(const google::protobuf::Descriptor* request);
template <typename Request>
size_t MethodOf() {
  static const size_t method = MethodOf(Request::descriptor());
  return method;
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_RPC_METHODS_H_
