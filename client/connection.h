#ifndef MMLAB_CLIENT_CONNECTION_H_
#define MMLAB_CLIENT_CONNECTION_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>

#include "mmlab/v1/file.grpc.pb.h"
#include "mmlab/v1/machine.grpc.pb.h"
#include "mmlab/v1/operation.grpc.pb.h"
#include "mmlab/v1/page.grpc.pb.h"
#include "mmlab/v1/proc.grpc.pb.h"
#include "mmlab/v1/process.grpc.pb.h"

namespace mmlab {

// The services of one server over one channel, each call with a deadline. Thread-safe.
class Connection {
 public:
  explicit Connection(std::shared_ptr<grpc::Channel> channel, std::chrono::milliseconds deadline = std::chrono::seconds(10))
      : channel_(channel),
        deadline_(deadline),
        machines(v1::MachineService::NewStub(channel)),
        processes(v1::ProcessService::NewStub(channel)),
        files(v1::FileService::NewStub(channel)),
        pages(v1::PageService::NewStub(channel)),
        proc(v1::ProcService::NewStub(channel)),
        operations(v1::OperationService::NewStub(channel)) {}

  // One unary call: connection.Call(*connection.machines, &MachineService::Stub::GetMachine, request, &response).
  template <typename Stub, typename Request, typename Response>
  grpc::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
                    Response* response) const {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline_);
    return (stub.*method)(&context, request, response);
  }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::chrono::milliseconds deadline_;

 public:
  const std::unique_ptr<v1::MachineService::Stub> machines;
  const std::unique_ptr<v1::ProcessService::Stub> processes;
  const std::unique_ptr<v1::FileService::Stub> files;
  const std::unique_ptr<v1::PageService::Stub> pages;
  const std::unique_ptr<v1::ProcService::Stub> proc;
  const std::unique_ptr<v1::OperationService::Stub> operations;
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CONNECTION_H_
