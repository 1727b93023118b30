// How costs grow: the same work on much and on little, where it must not matter (or not much).

#include <memory>
#include <stdexcept>
#include <vector>

#include "server/base/random.h"
#include "server/physical/page_allocator.h"
#include "server/procfs/procfs.h"
#include "tests/bench/goals.h"
#include "tests/bench/workload.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMib = uint64_t{1} << 20;

MachineSpec SpecOfMib(uint64_t mib) { return BenchSpecOf(Bytes(mib * kMib)); }

std::unique_ptr<Machine> Booted(const MachineSpec& spec) {
  absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(spec);
  if (!machine.ok()) throw std::runtime_error(std::string(machine.status().message()));
  return *std::move(machine);
}

template <uint64_t kRamMib>
void Create(benchmark::State& state) {
  const MachineSpec spec = SpecOfMib(kRamMib);
  for (auto _ : state) benchmark::DoNotOptimize(Machine::Boot(spec));
}

template <uint64_t kRamMib>
void ReadCounters(benchmark::State& state) {
  const auto machine = Booted(SpecOfMib(kRamMib));
  for (auto _ : state) {
    for (const char* file : {"meminfo", "zoneinfo", "buddyinfo"}) benchmark::DoNotOptimize(ReadProcFile(*machine, file));
  }
}

// Write faults in random order over so much memory, each once.
template <uint64_t kMappedMib>
void RandomFaults(benchmark::State& state) {
  const auto machine = BenchMachine(4);
  const Pid pid = StartProcess(*machine);
  constexpr uint64_t kPages = kMappedMib * kMib / kPage;
  Random random(1);
  std::vector<uint32_t> order(kPages);
  for (uint32_t i = 0; i < kPages; ++i) order[i] = i;
  for (uint64_t i = kPages - 1; i > 0; --i) std::swap(order[i], order[random.Below(i + 1)]);
  for (auto _ : state) {
    const uint64_t address = MapAnonymous(*machine, pid, kMappedMib * kMib);
    for (const uint32_t page : order) Touch(*machine, pid, address + page * kPage, 1, AccessKind::kTouchWrite);
    Unmap(*machine, pid, address, kMappedMib * kMib);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kPages));
}

// Single pages by the hundred, so that they come from the free lists and go back there, of memory in one piece or in the smallest ones.
template <bool kFragmented>
void PagesFromFreeLists(benchmark::State& state) {
  Tracer tracer;
  PhysicalConfig config;
  constexpr uint64_t kEnd = uint64_t{1} << 17;
  config.ram = {{Pfn(1024), Pfn(kEnd)}};
  config.reserved = {{{Pfn(1024), Pfn(1025)}, "zero page"}};
  config.zone_end = {Pfn(0), Pfn(0), Pfn(kEnd), Pfn(kEnd), Pfn(kEnd)};
  BuddyMemory memory(config, tracer);
  std::vector<Pfn> all;
  while (const std::optional<Pfn> pfn = memory.AllocPages(kGfpHighuserMovable, PageOrder(0))) all.push_back(*pfn);
  for (const Pfn pfn : all) {
    if (!kFragmented || pfn.raw() % 2 == 0) memory.FreePages(pfn, PageOrder(0));
  }
  memory.DrainAllPages();
  constexpr size_t kTaken = 2000;
  std::vector<Pfn> pages(kTaken);
  for (auto _ : state) {
    for (Pfn& pfn : pages) pfn = *memory.AllocPages(kGfpHighuserMovable, PageOrder(0));
    for (const Pfn pfn : pages) memory.FreePages(pfn, PageOrder(0));
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kTaken));
}

const RegisterGoals kGoals({
    {"E12", "read of meminfo, zoneinfo and buddyinfo, 4 GiB", {60000, 6000, 1500}, "ns", ReadCounters<4096>},
    {"G1", "create a 64 GiB machine / a 64 MiB machine", {3, 1.5, 1.1}, "x", Create<65536>, Create<64>},
    {"G2", "meminfo, zoneinfo, buddyinfo of 64 GiB / of 64 MiB", {3, 1.5, 1.1}, "x", ReadCounters<65536>, ReadCounters<64>},
    {"G3", "random write faults over 3 GiB / over 64 MiB", {6, 4, 3}, "x", RandomFaults<3072>, RandomFaults<64>},
    {"G4", "single pages of memory in pieces / in one piece", {2, 1.5, 1}, "x", PagesFromFreeLists<true>, PagesFromFreeLists<false>},
});

}  // namespace
}  // namespace mmlab
