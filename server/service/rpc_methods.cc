#include "server/service/rpc_methods.h"

#include "absl/container/flat_hash_map.h"
#include "mmlab/v1/cgroup.pb.h"
#include "mmlab/v1/file.pb.h"
#include "mmlab/v1/kernel_memory.pb.h"
#include "mmlab/v1/layout.pb.h"
#include "mmlab/v1/machine.pb.h"
#include "mmlab/v1/memory.pb.h"
#include "mmlab/v1/operation.pb.h"
#include "mmlab/v1/page.pb.h"
#include "mmlab/v1/page_replacement.pb.h"
#include "mmlab/v1/proc.pb.h"
#include "mmlab/v1/process.pb.h"
#include "mmlab/v1/swap.pb.h"
#include "mmlab/v1/vmalloc.pb.h"
#include "mmlab/v1/watch.pb.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

RpcType TypeOf(const MethodDescriptor& method) {
  if (method.client_streaming()) return method.server_streaming() ? RpcType::kBidiStream : RpcType::kClientStream;
  return method.server_streaming() ? RpcType::kServerStream : RpcType::kUnary;
}

struct Table {
  std::vector<std::string> services;
  std::vector<RpcMethod> methods;
  absl::flat_hash_map<const Descriptor*, size_t> by_request;

  void Add(const FileDescriptor& file) {
    for (int s = 0; s < file.service_count(); ++s) {
      const ServiceDescriptor& service = *file.service(s);
      services.push_back(service.full_name());
      for (int m = 0; m < service.method_count(); ++m) {
        const MethodDescriptor& method = *service.method(m);
        by_request.emplace(method.input_type(), methods.size());
        methods.push_back(RpcMethod{service.full_name(), method.name(), TypeOf(method)});
      }
    }
  }
};

const Table& Methods() {
  static const Table* const table = [] {
    auto* made = new Table;
    made->Add(*v1::MachineSpec::descriptor()->file());
    made->Add(*v1::Process::descriptor()->file());
    made->Add(*v1::AddressSpace::descriptor()->file());
    made->Add(*v1::CreateFileRequest::descriptor()->file());
    made->Add(*v1::Frame::descriptor()->file());
    made->Add(*v1::SlabCache::descriptor()->file());
    made->Add(*v1::VmallocRequest::descriptor()->file());
    made->Add(*v1::Cgroup::descriptor()->file());
    made->Add(*v1::SwaponRequest::descriptor()->file());
    made->Add(*v1::PageReplacement::descriptor()->file());
    made->Add(*v1::MeminfoField::descriptor()->file());
    made->Add(*v1::LayoutValue::descriptor()->file());
    made->Add(*v1::Operation::descriptor()->file());
    made->Add(*v1::WatchRequest::descriptor()->file());
    return made;
  }();
  return *table;
}

}  // namespace

const std::vector<RpcMethod>& RpcMethods() { return Methods().methods; }

const std::vector<std::string>& RpcServices() { return Methods().services; }

size_t MethodOf(const Descriptor* request) {
  const auto found = Methods().by_request.find(request);
  MMLAB_CHECK(found != Methods().by_request.end());
  return found->second;
}

}  // namespace mmlab
