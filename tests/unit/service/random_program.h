#ifndef MMLAB_TESTS_UNIT_SERVICE_RANDOM_PROGRAM_H_
#define MMLAB_TESTS_UNIT_SERVICE_RANDOM_PROGRAM_H_

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "mmlab/v1/operation.pb.h"
#include "server/base/random.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {

// Operations that somebody could think of: most make sense, some do not. They begin with a program that is exec'ed in process `pid`, which
// must be the next pid of the machine.
inline std::vector<v1::Operation> RandomProgram(uint64_t seed, int length, int32_t pid) {
  constexpr uint64_t kPage = 4096;
  constexpr uint64_t kBase = 0x40000000;
  Random random(seed);
  v1::ExecuteBatchRequest start;
  AddExec("/bin/small", pid, &start);
  std::vector<v1::Operation> program(start.operations().begin(), start.operations().end());
  const auto address = [&] { return kBase + random.Below(256) * kPage; };
  const auto size = [&] { return (1 + random.Below(16)) * kPage; };
  while (static_cast<int>(program.size()) < length) {
    v1::Operation operation;
    const int32_t who = random.Below(20) == 0 ? pid + 1 : pid;
    switch (random.Below(12)) {
      case 0: {
        auto* mmap = operation.mutable_mmap();
        mmap->set_pid(who);
        mmap->set_address(random.Below(3) == 0 ? 0 : address());
        mmap->set_length_bytes(size());
        mmap->set_prot(static_cast<uint32_t>(random.Below(8)));
        mmap->set_flags(0x22 | (random.Below(2) == 0 ? 0x10 : 0) | (random.Below(8) == 0 ? 0x8000 : 0));
        mmap->set_fd(-1);
        break;
      }
      case 1: {
        auto* munmap = operation.mutable_munmap();
        munmap->set_pid(who);
        munmap->set_address(address());
        munmap->set_length_bytes(size());
        break;
      }
      case 2: {
        auto* mprotect = operation.mutable_mprotect();
        mprotect->set_pid(who);
        mprotect->set_address(address());
        mprotect->set_length_bytes(size());
        mprotect->set_prot(static_cast<uint32_t>(random.Below(8)));
        break;
      }
      case 3: {
        auto* brk = operation.mutable_brk();
        brk->set_pid(who);
        brk->set_address(random.Below(2) == 0 ? 0 : 0x0804c000 + random.Below(64) * kPage);
        break;
      }
      case 4:
        operation.mutable_fork()->set_pid(who);
        break;
      case 5:
        if (random.Below(4) != 0) continue;
        operation.mutable_exit()->set_pid(pid + 1 + static_cast<int32_t>(random.Below(4)));
        break;
      case 6: {
        auto* alloc = operation.mutable_alloc_pages();
        alloc->set_gfp(static_cast<v1::GfpClass>(1 + random.Below(11)));
        alloc->set_order(static_cast<int32_t>(random.Below(5)));
        break;
      }
      case 7: {
        auto* free = operation.mutable_free_pages();
        free->set_pfn(random.Below(16384));
        free->set_order(static_cast<int32_t>(random.Below(3)));
        break;
      }
      default: {
        auto* access = operation.mutable_access_memory();
        access->set_pid(who);
        access->set_kind(static_cast<v1::AccessKind>(1 + random.Below(8)));
        access->set_address(random.Below(4) == 0 ? 0x08049000 + random.Below(3) * kPage : address());
        const bool word = access->kind() == v1::ACCESS_KIND_LOAD || access->kind() == v1::ACCESS_KIND_STORE;
        access->set_length_bytes(word ? uint64_t{1} << random.Below(4) : size());
        access->set_value(random.Below(256));
        if (access->kind() == v1::ACCESS_KIND_WRITE_BYTES) access->set_data(std::string(random.Below(5000), 'x'));
        access->set_explain(random.Below(16) == 0);
        break;
      }
    }
    program.push_back(std::move(operation));
  }
  return program;
}

// The same operation, alone: what the unary method answers.
inline grpc::Status CallAlone(TestServer& server, const std::string& machine, const v1::Operation& operation, v1::Outcome* outcome) {
  grpc::Status status;
  const auto call = [&](const auto& stub, auto method, auto request, auto response) {
    request.set_machine(machine);
    status = Call(stub, method, request, &response);
    *outcome = response.outcome();
  };
  switch (operation.operation_case()) {
#define MMLAB_ALONE(Service, stub, Name, field)                                           \
  case v1::Operation::k##Name:                                                            \
    call(server.stub, &v1::Service::Stub::Name, operation.field(), v1::Name##Response()); \
    break;
    MMLAB_ALONE(ProcessService, processes, CreateProcess, create_process)
    MMLAB_ALONE(ProcessService, processes, Exec, exec)
    MMLAB_ALONE(ProcessService, processes, Fork, fork)
    MMLAB_ALONE(ProcessService, processes, Exit, exit)
    MMLAB_ALONE(ProcessService, processes, Mmap, mmap)
    MMLAB_ALONE(ProcessService, processes, Munmap, munmap)
    MMLAB_ALONE(ProcessService, processes, Mprotect, mprotect)
    MMLAB_ALONE(ProcessService, processes, Brk, brk)
    MMLAB_ALONE(ProcessService, processes, AccessMemory, access_memory)
    MMLAB_ALONE(FileService, files, CreateFile, create_file)
    MMLAB_ALONE(PageService, pages, AllocPages, alloc_pages)
    MMLAB_ALONE(PageService, pages, FreePages, free_pages)
#undef MMLAB_ALONE
    default:
      ADD_FAILURE() << "no such operation in these programs";
  }
  return status;
}

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_SERVICE_RANDOM_PROGRAM_H_
