// The page allocator against glibc's malloc.

#include <cstdlib>
#include <memory>
#include <vector>

#include "server/base/random.h"
#include "server/physical/page_allocator.h"
#include "tests/bench/goals.h"

namespace mmlab {
namespace {

constexpr int kLive = 20000;
constexpr int kGlibcLive = 10000;

// 4 GiB in one zone.
std::unique_ptr<BuddyMemory> BenchMemory(Tracer& tracer) {
  PhysicalConfig config;
  constexpr uint64_t kEnd = uint64_t{1} << 20;
  config.ram = {{Pfn(1024), Pfn(kEnd)}};
  config.reserved = {{{Pfn(1024), Pfn(1025)}, "zero page"}};
  config.zone_end = {Pfn(0), Pfn(0), Pfn(kEnd), Pfn(kEnd), Pfn(kEnd)};
  return std::make_unique<BuddyMemory>(config, tracer);
}

void PagePair(benchmark::State& state) {
  Tracer tracer;
  const auto memory = BenchMemory(tracer);
  for (auto _ : state) {
    const std::optional<Pfn> pfn = memory->AllocPages(kGfpKernel, PageOrder(0));
    memory->FreePages(*pfn, PageOrder(0));
  }
}

void MallocPair(benchmark::State& state) {
  for (auto _ : state) {
    void* object = std::malloc(64);
    benchmark::DoNotOptimize(object);
    std::free(object);
  }
}

void RandomOrders(benchmark::State& state) {
  struct Block {
    Pfn pfn;
    PageOrder order;
  };
  Tracer tracer;
  const auto memory = BenchMemory(tracer);
  Random random(1);
  std::vector<Block> blocks(kLive);
  const auto take = [&](Block& block) {
    block.order = PageOrder(static_cast<int>(random.Below(4)));
    block.pfn = *memory->AllocPages(kGfpKernel, block.order);
  };
  for (Block& block : blocks) take(block);
  for (auto _ : state) {
    Block& block = blocks[random.Below(kLive)];
    memory->FreePages(block.pfn, block.order);
    take(block);
  }
}

void RandomSizes(benchmark::State& state) {
  Random random(1);
  std::vector<void*> objects(kGlibcLive);
  const auto take = [&] { return std::malloc(16 + random.Below(1009)); };
  for (void*& object : objects) object = take();
  for (auto _ : state) {
    void*& object = objects[random.Below(kGlibcLive)];
    std::free(object);
    object = take();
  }
  for (void* object : objects) std::free(object);
}

const RegisterGoals kGoals({
    {"E1", "order-0 alloc+free pair / glibc malloc+free 64 B", {4, 2, 1}, "x", PagePair, MallocPair},
    {"E2", "random orders 0-3, 20,000 live / glibc random sizes", {2, 1, 0.6}, "x", RandomOrders, RandomSizes},
});

}  // namespace
}  // namespace mmlab
