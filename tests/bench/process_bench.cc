// Processes' memory against the host kernel's own.

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "server/arch/page_table_format.h"
#include "server/base/random.h"
#include "server/hardware/page_walk.h"
#include "server/physical/page_allocator.h"
#include "server/process/vm_area.h"
#include "server/process/vma_tree.h"
#include "tests/bench/goals.h"
#include "tests/bench/workload.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kBytes = 64 << 20;
constexpr uint64_t kPages = kBytes / kPage;
constexpr uint64_t kForkBytes = 32 << 20;

// The host's side of E4 and E5: as will-it-scale's page_fault1.
char* HostMap(uint64_t bytes) {
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) std::abort();
  madvise(at, bytes, MADV_NOHUGEPAGE);
  return static_cast<char*>(at);
}

template <AccessKind kKind>
void Fault(benchmark::State& state) {
  const auto machine = BenchMachine(4);
  const Pid pid = StartProcess(*machine);
  for (auto _ : state) {
    const uint64_t address = MapAnonymous(*machine, pid, kBytes);
    Touch(*machine, pid, address, kBytes, kKind);
    Unmap(*machine, pid, address, kBytes);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kPages));
}

template <AccessKind kKind>
void HostFault(benchmark::State& state) {
  for (auto _ : state) {
    char* const at = HostMap(kBytes);
    for (uint64_t i = 0; i < kBytes; i += kPage) {
      if (kKind == AccessKind::kTouchWrite) {
        *static_cast<volatile char*>(at + i) = 1;
      } else {
        (void)*static_cast<volatile char*>(at + i);
      }
    }
    munmap(at, kBytes);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kPages));
}

// The parent writes to what it shares with a child; only that is timed.
void CowFault(benchmark::State& state) {
  const auto machine = BenchMachine(4);
  const Pid pid = StartProcess(*machine);
  const uint64_t address = MapAnonymous(*machine, pid, kForkBytes);
  Touch(*machine, pid, address, kForkBytes, AccessKind::kTouchWrite);
  for (auto _ : state) {
    state.PauseTiming();
    const Pid child(static_cast<int32_t>(MustApply(*machine, op::Fork{pid, 0})));
    state.ResumeTiming();
    Touch(*machine, pid, address, kForkBytes, AccessKind::kTouchWrite);
    state.PauseTiming();
    MustApply(*machine, op::Exit{child, 0});
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * (kForkBytes / kPage)));
}

void HostCowFault(benchmark::State& state) {
  char* const at = HostMap(kForkBytes);
  const auto touch = [&] {
    for (uint64_t i = 0; i < kForkBytes; i += kPage) *static_cast<volatile char*>(at + i) = 1;
  };
  touch();
  for (auto _ : state) {
    state.PauseTiming();
    int ends[2];
    if (pipe(ends) != 0) return state.SkipWithError("pipe failed");
    const pid_t child = fork();
    if (child == 0) {  // Holds the pages until the parent closes the pipe.
      char byte;
      close(ends[1]);
      _exit(static_cast<int>(read(ends[0], &byte, 1)));
    }
    state.ResumeTiming();
    touch();
    state.PauseTiming();
    close(ends[0]);
    close(ends[1]);
    waitpid(child, nullptr, 0);
    state.ResumeTiming();
  }
  munmap(at, kForkBytes);
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * (kForkBytes / kPage)));
}

void Fork(benchmark::State& state) {
  const auto machine = BenchMachine(4);
  const Pid pid = StartProcess(*machine);
  Touch(*machine, pid, MapAnonymous(*machine, pid, kForkBytes), kForkBytes, AccessKind::kTouchWrite);
  for (auto _ : state) {
    const Pid child(static_cast<int32_t>(MustApply(*machine, op::Fork{pid, 0})));
    state.PauseTiming();
    MustApply(*machine, op::Exit{child, 0});
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * (kForkBytes / kPage)));
}

void HostFork(benchmark::State& state) {
  char* const at = HostMap(kForkBytes);
  for (uint64_t i = 0; i < kForkBytes; i += kPage) at[i] = 1;
  for (auto _ : state) {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    state.PauseTiming();
    waitpid(child, nullptr, 0);
    state.ResumeTiming();
  }
  munmap(at, kForkBytes);
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * (kForkBytes / kPage)));
}

void MmapMunmap(benchmark::State& state) {
  const auto machine = BenchMachine(4);
  const Pid pid = StartProcess(*machine);
  for (auto _ : state) Unmap(*machine, pid, MapAnonymous(*machine, pid, kPage), kPage);
}

void HostMmapMunmap(benchmark::State& state) {
  for (auto _ : state) {
    void* const at = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(at, kPage);
  }
}

// Lookups in random order among so many VMAs of a page each, with a page between them.
template <uint64_t kCount>
void VmaLookup(benchmark::State& state) {
  VmaTree tree;
  for (uint64_t i = 0; i < kCount; ++i) {
    auto vma = std::make_unique<VmArea>();
    vma->start = VirtAddr(i * 2 * kPage);
    vma->end = VirtAddr(i * 2 * kPage + kPage);
    tree.Insert(std::move(vma));
  }
  Random random(1);
  for (auto _ : state) benchmark::DoNotOptimize(tree.Find(VirtAddr(random.Below(kCount) * 2 * kPage)));
}

template <uint64_t kCount>
void BtreeLookup(benchmark::State& state) {
  absl::btree_map<uint64_t, void*> tree;
  for (uint64_t i = 0; i < kCount; ++i) tree[i * 2 * kPage + kPage] = nullptr;
  Random random(1);
  for (auto _ : state) benchmark::DoNotOptimize(tree.upper_bound(random.Below(kCount) * 2 * kPage));
}

// A walk of all levels in random order, without TLB.
void Translate(benchmark::State& state) {
  const auto machine = BenchMachine(4);
  const Pid pid = StartProcess(*machine);
  const uint64_t address = MapAnonymous(*machine, pid, kBytes);
  Touch(*machine, pid, address, kBytes, AccessKind::kTouchWrite);
  const Pfn root(MustApply(*machine, op::SwitchTo{pid, 0}) / kPage);
  const PageTableFormat format(machine->layout());
  const auto& contents = const_cast<const BuddyMemory&>(machine->memory()).contents();
  const auto read = [&](Pfn frame, size_t offset, void* out, size_t size) { contents.Read(frame, offset, out, size); };
  Random random(1);
  for (auto _ : state) {
    const VirtAddr at(address + random.Below(kPages) * kPage);
    benchmark::DoNotOptimize(FollowPageTables(format, read, root, at, [](int, Pfn, uint32_t, uint64_t) {}));
  }
}

const RegisterGoals kGoals({
    {"E4",
     "anonymous write faults / the host kernel's",
     {0.333, 0.1, 0.04},
     "x",
     Fault<AccessKind::kTouchWrite>,
     HostFault<AccessKind::kTouchWrite>},
    {"E4n", "anonymous write fault, absolute", {300, 150, 60}, "ns", Fault<AccessKind::kTouchWrite>},
    {"E5c", "COW faults after fork / the host kernel's", {0.333, 0.125, 0.067}, "x", CowFault, HostCowFault},
    {"E5r",
     "anonymous read faults / the host kernel's",
     {0.333, 0.125, 0.067},
     "x",
     Fault<AccessKind::kTouchRead>,
     HostFault<AccessKind::kTouchRead>},
    {"E6", "fork, for each mapped page / the host kernel's", {0.5, 0.25, 0.1}, "x", Fork, HostFork},
    {"E7", "mmap+munmap pair / the host kernel's", {0.2, 0.1, 0.05}, "x", MmapMunmap, HostMmapMunmap},
    {"E8a", "VMA lookup, 1,000 VMAs / absl::btree_map", {1.5, 1.1, 0.8}, "x", VmaLookup<1000>, BtreeLookup<1000>},
    {"E8b", "VMA lookup, 65,530 VMAs / absl::btree_map", {1.5, 1.1, 0.8}, "x", VmaLookup<65530>, BtreeLookup<65530>},
    {"E9", "address translation, walk of all levels", {30, 15, 8}, "ns", Translate},
});

}  // namespace
}  // namespace mmlab
