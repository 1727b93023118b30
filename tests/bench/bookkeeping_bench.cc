// What reclaim costs while nothing is reclaimed: of an anonymous page's write fault and its unmapping, the part that only keeps books for
// reclaim, and what memory cgroups and MGLRU add to it.

#include <memory>
#include <string>
#include <vector>

#include "server/physical/lru_lists.h"
#include "server/physical/page_allocator.h"
#include "tests/bench/goals.h"
#include "tests/bench/workload.h"

namespace mmlab {
namespace {

constexpr uint64_t kBytes = 64 << 20;
constexpr uint64_t kPages = kBytes / 4096;

void FaultAndUnmap(benchmark::State& state, Machine& machine, Pid pid) {
  for (auto _ : state) {
    const uint64_t address = MapAnonymous(machine, pid, kBytes);
    Touch(machine, pid, address, kBytes, AccessKind::kTouchWrite);
    Unmap(machine, pid, address, kBytes);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kPages));
}

void PlainFault(benchmark::State& state) {
  const auto machine = BenchMachine(1);
  FaultAndUnmap(state, *machine, StartProcess(*machine));
}

// The charge and the counters of a cgroup, three below the root.
void ChargedFault(benchmark::State& state) {
  const auto machine = BenchMachine(1);
  const Pid pid = StartProcess(*machine);
  std::string cgroup;
  for (const char* name : {"a", "/b", "/c"}) {
    MustApply(*machine, op::WriteCgroupFile{cgroup, "cgroup.subtree_control", "+memory"});
    cgroup += name;
    MustApply(*machine, op::CreateCgroup{cgroup});
  }
  MustApply(*machine, op::WriteCgroupFile{cgroup, "cgroup.procs", std::to_string(pid.raw())});
  FaultAndUnmap(state, *machine, pid);
}

void GenerationFault(benchmark::State& state) {
  const auto machine = BenchMachine(1);
  MustApply(*machine, op::WriteSysfs{"/sys/kernel/mm/lru_gen/enabled", "y"});
  FaultAndUnmap(state, *machine, StartProcess(*machine));
}

// The books alone, page for page what a fault and an unmap write into them: a place on a list, its counters of cgroup, zone and node, and
// nr_anon_pages.
void Books(benchmark::State& state) {
  PhysicalConfig config;
  constexpr uint64_t kEnd = uint64_t{1} << 18;
  config.ram = {{Pfn(1024), Pfn(kEnd)}};
  config.reserved = {{{Pfn(1024), Pfn(1025)}, "zero page"}};
  config.zone_end = {Pfn(0), Pfn(0), Pfn(kEnd), Pfn(kEnd), Pfn(kEnd)};
  Tracer tracer;
  BuddyMemory memory(config, tracer);
  std::vector<Pfn> pages;
  for (uint64_t i = 0; i < kPages; ++i) {
    pages.push_back(*memory.AllocPages(kGfpHighuserMovable, PageOrder(0)));
    memory.frame(pages.back()).state = FrameState::kAnon;
    memory.frame(pages.back()).flags |= kPgSwapBacked;
  }
  LruLists& lru = memory.lru();
  for (auto _ : state) {
    for (const Pfn pfn : pages) {
      lru.AddStat(memory.frame(pfn), NodeStat::kNrAnonPages, 1);
      lru.Add(pfn);
    }
    for (const Pfn pfn : pages) {
      lru.AddStat(memory.frame(pfn), NodeStat::kNrAnonPages, -1);
      lru.Remove(pfn);
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kPages));
}

const RegisterGoals kGoals({
    {"E4b", "reclaim's books of a page / its write fault and unmap", {0.5, 0.25, 0.15}, "x", Books, PlainFault},
    {"E4c", "write fault in a cgroup, three below the root / in none", {1.5, 1.2, 1.1}, "x", ChargedFault, PlainFault},
    {"E4g", "write fault with MGLRU / with active and inactive lists", {1.5, 1.2, 1.1}, "x", GenerationFault, PlainFault},
});

}  // namespace
}  // namespace mmlab
