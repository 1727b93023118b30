#ifndef MMLAB_SERVER_SERVICE_OPERATION_SERVICE_H_
#define MMLAB_SERVER_SERVICE_OPERATION_SERVICE_H_

#include "mmlab/v1/operation.grpc.pb.h"
#include "server/service/call.h"

namespace mmlab {

// mmlab.v1.OperationService: operations in batches and streams of batches.
class OperationService final : public v1::OperationService::CallbackService {
 public:
  // `context` outlives this.
  explicit OperationService(const ServiceContext& context);

  grpc::ServerUnaryReactor* ExecuteBatch(grpc::CallbackServerContext* context, const v1::ExecuteBatchRequest* request,
                                         v1::ExecuteBatchResponse* response) override;
  grpc::ServerBidiReactor<v1::ExecuteRequest, v1::ExecuteResponse>* Execute(grpc::CallbackServerContext* context) override;

 private:
  const ServiceContext& context_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_OPERATION_SERVICE_H_
