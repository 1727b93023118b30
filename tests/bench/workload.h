#ifndef MMLAB_TESTS_BENCH_WORKLOAD_H_
#define MMLAB_TESTS_BENCH_WORKLOAD_H_

#include <cstdint>
#include <memory>

#include "server/machine/machine.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// ARM64's usual board with so much RAM.
MachineSpec BenchSpecOf(Bytes ram);
MachineSpec BenchSpec(uint64_t ram_gib);
std::unique_ptr<Machine> BenchMachine(uint64_t ram_gib);

// Starts a process that runs a small program.
Pid StartProcess(Machine& machine);

// As mmap(NULL, ...), private and anonymous, readable and writable; the address.
uint64_t MapAnonymous(Machine& machine, Pid pid, uint64_t bytes);
void Unmap(Machine& machine, Pid pid, uint64_t address, uint64_t bytes);
// Touches one byte in each page.
void Touch(Machine& machine, Pid pid, uint64_t address, uint64_t bytes, AccessKind kind);
// Applies what must succeed. Throws std::runtime_error otherwise.
uint64_t MustApply(Machine& machine, const Operation& operation);

}  // namespace mmlab

#endif  // MMLAB_TESTS_BENCH_WORKLOAD_H_
