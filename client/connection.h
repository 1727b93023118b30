#ifndef MMLAB_CLIENT_CONNECTION_H_
#define MMLAB_CLIENT_CONNECTION_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mmlab/v1/cgroup.grpc.pb.h"
#include "mmlab/v1/file.grpc.pb.h"
#include "mmlab/v1/kernel_memory.grpc.pb.h"
#include "mmlab/v1/layout.grpc.pb.h"
#include "mmlab/v1/machine.grpc.pb.h"
#include "mmlab/v1/memory.grpc.pb.h"
#include "mmlab/v1/operation.grpc.pb.h"
#include "mmlab/v1/page.grpc.pb.h"
#include "mmlab/v1/page_replacement.grpc.pb.h"
#include "mmlab/v1/proc.grpc.pb.h"
#include "mmlab/v1/process.grpc.pb.h"
#include "mmlab/v1/vmalloc.grpc.pb.h"
#include "mmlab/v1/watch.grpc.pb.h"

namespace mmlab {

// The services of one server over one channel, each call with a deadline. Thread-safe.
//
// With retries, a call that ends with UNAVAILABLE (the server restarts, the connection broke) is made again, up to so many times. Requests
// that change something carry a request_id then, so that the server does the work once even when only its answer was lost.
class Connection {
 public:
  explicit Connection(const std::shared_ptr<grpc::Channel>& channel, std::chrono::milliseconds deadline = std::chrono::seconds(10),
                      int retries = 0)
      : channel_(channel),
        deadline_(deadline),
        retries_(retries),
        machines(v1::MachineService::NewStub(channel)),
        processes(v1::ProcessService::NewStub(channel)),
        memory(v1::MemoryService::NewStub(channel)),
        files(v1::FileService::NewStub(channel)),
        pages(v1::PageService::NewStub(channel)),
        page_replacement(v1::PageReplacementService::NewStub(channel)),
        slab(v1::SlabService::NewStub(channel)),
        kernel_addresses(v1::KernelAddressService::NewStub(channel)),
        cgroups(v1::CgroupService::NewStub(channel)),
        proc(v1::ProcService::NewStub(channel)),
        layouts(v1::LayoutService::NewStub(channel)),
        operations(v1::OperationService::NewStub(channel)),
        watch(v1::WatchService::NewStub(channel)) {}

  // One unary call: connection.Call(*connection.machines, &MachineService::Stub::GetMachine, request, &response).
  template <typename Stub, typename Request, typename Response>
  grpc::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
                    Response* response) const {
    if constexpr (requires(Request named) { named.set_request_id(std::string()); }) {
      if (retries_ > 0 && request.request_id().empty()) {
        Request named = request;
        named.set_request_id(request_ids_.Next());
        return Retry(stub, method, named, response);
      }
    }
    return Retry(stub, method, request, response);
  }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  template <typename Stub, typename Request, typename Response>
  grpc::Status Retry(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
                     Response* response) const {
    for (int attempt = 0;; ++attempt) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + deadline_);
      grpc::Status status = (stub.*method)(&context, request, response);
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE || attempt >= retries_) return status;
      std::this_thread::sleep_for(std::chrono::milliseconds(100) * (1 << attempt));
    }
  }

  // Ids that no other connection makes.
  class RequestIdSource {
   public:
    std::string Next() { return absl::StrCat(prefix_, next_++); }

   private:
    const std::string prefix_ = absl::StrFormat("mmlab-%08x%08x-", std::random_device()(), std::random_device()());
    std::atomic<uint64_t> next_ = 1;
  };

  std::shared_ptr<grpc::Channel> channel_;
  std::chrono::milliseconds deadline_;
  int retries_;
  mutable RequestIdSource request_ids_;

 public:
  const std::unique_ptr<v1::MachineService::Stub> machines;
  const std::unique_ptr<v1::ProcessService::Stub> processes;
  const std::unique_ptr<v1::MemoryService::Stub> memory;
  const std::unique_ptr<v1::FileService::Stub> files;
  const std::unique_ptr<v1::PageService::Stub> pages;
  const std::unique_ptr<v1::PageReplacementService::Stub> page_replacement;
  const std::unique_ptr<v1::SlabService::Stub> slab;
  const std::unique_ptr<v1::KernelAddressService::Stub> kernel_addresses;
  const std::unique_ptr<v1::CgroupService::Stub> cgroups;
  const std::unique_ptr<v1::ProcService::Stub> proc;
  const std::unique_ptr<v1::LayoutService::Stub> layouts;
  const std::unique_ptr<v1::OperationService::Stub> operations;
  const std::unique_ptr<v1::WatchService::Stub> watch;
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CONNECTION_H_
