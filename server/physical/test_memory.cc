#include "server/physical/test_memory.h"

namespace mmlab {

std::unique_ptr<BuddyMemory> MakeTestMemory(uint32_t pages, Tracer& tracer) {
  constexpr uint32_t kFirst = 1024;
  PhysicalConfig config;
  config.ram = {{Pfn(kFirst - 1), Pfn(kFirst + pages)}};
  config.reserved = {{{Pfn(kFirst - 1), Pfn(kFirst)}, "zero page"}};
  const Pfn end(kFirst + pages);
  config.zone_end = {Pfn(0), Pfn(0), end, end, end};
  config.min_free_kbytes = 0;
  config.watermark_scale_factor = 0;
  return std::make_unique<BuddyMemory>(config, tracer);
}

}  // namespace mmlab
