// The slab allocator against glibc's malloc.

#include <cstdlib>
#include <memory>

#include "server/kernel/slub.h"
#include "server/physical/test_memory.h"
#include "tests/bench/goals.h"

namespace mmlab {
namespace {

void SlabPair(benchmark::State& state) {
  Tracer tracer;
  const std::unique_ptr<BuddyMemory> memory = MakeTestMemory(1024, tracer);
  Slub slub(SlabPlatformOf(GetLayout(LayoutKind::kX86_32), 1), 0xc0000000, *memory, tracer, 1);
  const SlabCacheId cache = *slub.KmallocCache(64, kGfpKernel);
  for (auto _ : state) {
    const std::optional<SlabObject> object = slub.AllocObject(cache, kGfpKernel);
    slub.FreeObject(cache, *object);
  }
}

void GlibcPair(benchmark::State& state) {
  for (auto _ : state) {
    void* object = std::malloc(64);
    benchmark::DoNotOptimize(object);
    std::free(object);
  }
}

const RegisterGoals kGoals({
    {"E3", "slab object alloc+free pair / glibc malloc+free 64 B", {3, 1.5, 1}, "x", SlabPair, GlibcPair},
});

}  // namespace
}  // namespace mmlab
