// What it costs to give memory back: pages looked at, and pages written to swap and read again.

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

// A process writes more than there is of memory, again and again: every page that comes costs others theirs. Nanoseconds for each page that
// reclaim looks at, everything else that a fault takes included.
void ScanPages(benchmark::State& state) {
  const auto machine = BenchMachine(1);
  MustApply(*machine, op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 1024 * kMib, "", false});
  MustApply(*machine, op::Swapon{"/dev/vdb", std::nullopt});
  const Pid pid = StartProcess(*machine);
  const uint64_t bytes = machine->memory().free_pages().raw() * kPage + 256 * kMib;
  const uint64_t address = MapAnonymous(*machine, pid, bytes);
  Touch(*machine, pid, address, bytes, AccessKind::kTouchWrite);
  const auto scanned = [&] { return machine->vm_stat().Get(VmEvent::kPgscanAnon) + machine->vm_stat().Get(VmEvent::kPgscanFile); };
  const uint64_t before = scanned();
  for (auto _ : state) Touch(*machine, pid, address, bytes, AccessKind::kTouchWrite);
  state.SetItemsProcessed(static_cast<int64_t>(scanned() - before));
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

const RegisterGoals kGoals{
    {"E11a", "reclaim: a page scanned", {200, 66, 25}, "ns", ScanPages},
    {"E11c", "swap: a page out and in", {2000, 500, 200}, "ns", SwapOutAndIn},
};

}  // namespace
}  // namespace mmlab
