// What machines cost on the host, and how long they take to make.

#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "tests/bench/goals.h"
#include "tests/bench/workload.h"

namespace mmlab {
namespace {

constexpr double kStructPagesOfAGib = (16 + 2) * 1048576.0;  // Linux's own struct page and page tables for 1 GiB.

double ResidentBytes() {
  long pages = 0;
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr || std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
  if (file != nullptr) std::fclose(file);
  return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

void IdleMachine(benchmark::State& state) {
  for (auto _ : state) state.counters["value"] = static_cast<double>(BenchMachine(4)->HostMemory().raw());
}

void IdleMachineResident(benchmark::State& state) {
  constexpr int kMachines = 1000;
  for (auto _ : state) {
    std::vector<std::unique_ptr<Machine>> machines(kMachines);
    malloc_trim(0);  // What earlier goals left free must not serve this one.
    const double before = ResidentBytes();
    for (auto& machine : machines) machine = BenchMachine(4);
    state.counters["value"] = (ResidentBytes() - before) / kMachines;
  }
}

// All that a process can get of 1 GiB, touched.
void FullMachine(benchmark::State& state) {
  for (auto _ : state) {
    const auto machine = BenchMachine(2);
    const Pid pid = StartProcess(*machine);
    constexpr uint64_t kGib = uint64_t{1} << 30;
    const double before = static_cast<double>(machine->HostMemory().raw());
    const uint64_t address = MapAnonymous(*machine, pid, kGib);
    Touch(*machine, pid, address, kGib, AccessKind::kTouchWrite);
    state.counters["value"] = (static_cast<double>(machine->HostMemory().raw()) - before) / kStructPagesOfAGib;
  }
}

void HostBytesOfVma(benchmark::State& state) {
  constexpr int kVmas = 10000;
  for (auto _ : state) {
    const auto machine = BenchMachine(4);
    const Pid pid = StartProcess(*machine);
    const double before = static_cast<double>(machine->HostMemory().raw());
    // Neighbours that differ in their permissions do not merge.
    for (int i = 0; i < kVmas; ++i) MustApply(*machine, op::Mmap{pid, 0, 4096, i % 2 == 0 ? 3u : 1u, 0x22, -1, 0});
    state.counters["value"] = (static_cast<double>(machine->HostMemory().raw()) - before) / kVmas;
  }
}

// A process that runs a program, without the frames that the simulated kernel gave to it.
void HostBytesOfProcess(benchmark::State& state) {
  constexpr int kProcesses = 1000;
  for (auto _ : state) {
    const auto machine = BenchMachine(4);
    StartProcess(*machine);
    const auto host = [&] { return static_cast<double>(machine->HostMemory().raw() - machine->memory().HostMemory()); };
    const double before = host();
    for (int i = 0; i < kProcesses; ++i) StartProcess(*machine);
    state.counters["value"] = (host() - before) / kProcesses;
  }
}

template <uint64_t kGib>
void Create(benchmark::State& state) {
  const MachineSpec spec = BenchSpec(kGib);
  for (auto _ : state) benchmark::DoNotOptimize(Machine::Boot(spec));
}

void ForkExit(benchmark::State& state) {
  for (auto _ : state) {
    const pid_t pid = fork();
    if (pid == 0) _exit(0);
    if (pid < 0 || waitpid(pid, nullptr, 0) != pid) return state.SkipWithError("fork failed");
  }
}

const RegisterGoals kGoals({
    {"M1", "host bytes of an idle 4 GiB machine, own accounting", {262144, 65536, 16384}, "B", IdleMachine},
    {"M2", "resident bytes of each of 1,000 idle 4 GiB machines", {268435, 67108, 17895}, "B", IdleMachineResident},
    {"M3", "host bytes of a touched GiB / Linux's struct page + tables", {1.5, 1, 0.6}, "x", FullMachine},
    {"M4p", "host bytes of a process", {16384, 6144, 3072}, "B", HostBytesOfProcess},
    {"M4v", "host bytes of a VMA", {512, 200, 96}, "B", HostBytesOfVma},
    {"M5", "create a 4 GiB machine / host fork+exit+wait", {6, 1, 0.2}, "x", Create<4>, ForkExit, true},
    {"M5g", "create a 64 GiB machine / a 4 GiB machine", {2, 1.5, 1.1}, "x", Create<64>, Create<4>},
});

}  // namespace
}  // namespace mmlab
