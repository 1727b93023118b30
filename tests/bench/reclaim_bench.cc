// What it costs to give memory back: pages looked at, pages moved together, and pages written to swap and read again.

#include <benchmark/benchmark.h>

#include <memory>
#include <stdexcept>

#include "server/physical/page_allocator.h"
#include "tests/bench/goals.h"
#include "tests/bench/workload.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr int32_t kMadvPageout = 21;

// A file of 512 MiB is mapped and read; then half of it is to be reclaimed, which looks at the pages that were just used once more before
// it unmaps and frees any: nanoseconds for each page looked at.
void ScanPages(benchmark::State& state) {
  constexpr uint64_t kBytes = 512 * kMib;
  constexpr uint32_t kProtRead = 1, kMapShared = 1;
  const auto machine = BenchMachine(1);
  MustApply(*machine, op::CreateFile{"/data", op::FileSystem::kExt4, kBytes, "", false});
  const Pid pid = StartProcess(*machine);
  const auto fd = static_cast<int32_t>(MustApply(*machine, op::Open{pid, "/data"}));
  const uint64_t address = MustApply(*machine, op::Mmap{.pid = pid, .length = kBytes, .prot = kProtRead, .flags = kMapShared, .fd = fd});
  const auto scanned = [&] { return machine->vm_stat().Get(VmEvent::kPgscanAnon) + machine->vm_stat().Get(VmEvent::kPgscanFile); };
  for (auto _ : state) {
    state.PauseTiming();
    Touch(*machine, pid, address, kBytes, AccessKind::kTouchRead);
    state.ResumeTiming();
    MustApply(*machine, op::WriteCgroupFile{"", "memory.reclaim", "256M"});
  }
  if (scanned() < state.iterations() * kBytes / 2 / kPage) state.SkipWithError("not everything was reclaimed");
  state.SetItemsProcessed(static_cast<int64_t>(scanned()));
}

// 64 MiB go to swap by MADV_PAGEOUT and come back by faults: nanoseconds for each page's way out and in.
void SwapOutAndIn(benchmark::State& state) {
  constexpr uint64_t kBytes = 64 * kMib;
  const auto machine = BenchMachine(1);
  MustApply(*machine, op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 512 * kMib, "", false});
  MustApply(*machine, op::Swapon{"/dev/vdb", std::nullopt});
  const Pid pid = StartProcess(*machine);
  const uint64_t address = MapAnonymous(*machine, pid, kBytes);
  for (auto _ : state) {
    Touch(*machine, pid, address, kBytes, AccessKind::kTouchWrite);
    MustApply(*machine, op::Madvise{pid, address, kBytes, kMadvPageout});
  }
  if (machine->vm_stat().Get(VmEvent::kPswpout) < state.iterations() * kBytes / kPage)
    state.SkipWithError("not everything was swapped out");
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBytes / kPage));
}

// A process's memory of which every second page is gone is moved together: nanoseconds for each page that moves.
void CompactPages(benchmark::State& state) {
  constexpr uint64_t kBytes = 512 * kMib;
  constexpr int32_t kMadvDontneed = 4;
  uint64_t moved = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto machine = BenchMachine(1);
    const Pid pid = StartProcess(*machine);
    const uint64_t address = MapAnonymous(*machine, pid, kBytes);
    Touch(*machine, pid, address, kBytes, AccessKind::kTouchWrite);
    for (uint64_t at = 0; at < kBytes; at += 2 * kPage) MustApply(*machine, op::Madvise{pid, address + at, kPage, kMadvDontneed});
    state.ResumeTiming();
    MustApply(*machine, op::WriteSysctl{"vm.compact_memory", "1"});
    state.PauseTiming();
    moved += machine->vm_stat().Get(VmEvent::kPgmigrateSuccess);
    machine.reset();
    state.ResumeTiming();
  }
  if (moved == 0) state.SkipWithError("nothing moved");
  state.SetItemsProcessed(static_cast<int64_t>(moved));
}

const RegisterGoals kGoals{
    {"E11a", "reclaim: a page scanned", {200, 66, 25}, "ns", ScanPages},
    {"E11b", "compaction: a page moved", {1000, 333, 125}, "ns", CompactPages},
    {"E11c", "swap: a page out and in", {2000, 500, 200}, "ns", SwapOutAndIn},
};

}  // namespace
}  // namespace mmlab
