#include "tests/bench/workload.h"

#include <stdexcept>

#include "server/machine/board.h"

namespace mmlab {

MachineSpec BenchSpecOf(Bytes ram) {
  MachineSpec spec;
  spec.layout = LayoutKind::kArm64;
  if (!DescribeUsualBoard(ram, spec).ok()) throw std::runtime_error("no such board");
  return spec;
}

MachineSpec BenchSpec(uint64_t ram_gib) { return BenchSpecOf(Bytes(ram_gib << 30)); }

std::unique_ptr<Machine> BenchMachine(uint64_t ram_gib) {
  absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(BenchSpec(ram_gib));
  if (!machine.ok()) throw std::runtime_error(std::string(machine.status().message()));
  return *std::move(machine);
}

uint64_t MustApply(Machine& machine, const Operation& operation) {
  const Outcome outcome = machine.Apply(operation);
  if (outcome.error != Errno::kOk || outcome.signal) throw std::runtime_error(std::string(OperationName(operation)) + " failed");
  return outcome.value;
}

Pid StartProcess(Machine& machine) {
  ElfImage image;
  image.path = "/bin/program";
  image.entry = 0x400100;
  image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x400000, 0x3000, 0x3000, 5, 0x10000},
                           {ProgramHeader::Type::kLoad, 0x10000, 0x420000, 0x1000, 0x9000, 6, 0x10000},
                           {ProgramHeader::Type::kGnuStack, 0, 0, 0, 0, 6, 16}};
  machine.Apply(op::CreateFile{image.path, op::FileSystem::kExt4, 0x11000, "", true});  // EEXIST from the second time on.
  const Pid pid(static_cast<int32_t>(MustApply(machine, op::CreateProcess{"program", 1000, false})));
  MustApply(machine, op::Exec{pid, image, std::nullopt, {"program"}, {}});
  return pid;
}

uint64_t MapAnonymous(Machine& machine, Pid pid, uint64_t bytes) { return MustApply(machine, op::Mmap{pid, 0, bytes, 3, 0x22, -1, 0}); }

void Unmap(Machine& machine, Pid pid, uint64_t address, uint64_t bytes) { MustApply(machine, op::Munmap{pid, address, bytes}); }

void Touch(Machine& machine, Pid pid, uint64_t address, uint64_t bytes, AccessKind kind) {
  AccessRequest access;
  access.kind = kind;
  access.address = address;
  access.length = bytes;
  access.value = 1;
  MustApply(machine, op::AccessMemory{pid, access});
}

}  // namespace mmlab
