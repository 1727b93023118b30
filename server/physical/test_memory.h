#ifndef MMLAB_SERVER_PHYSICAL_TEST_MEMORY_H_
#define MMLAB_SERVER_PHYSICAL_TEST_MEMORY_H_

#include <cstdint>
#include <memory>

#include "server/physical/page_allocator.h"

namespace mmlab {

// A small machine's memory for tests of other rooms: one zone (Normal) of `pages` frames from pfn 1024, all free, no watermarks, one CPU.
// `tracer` outlives it.
std::unique_ptr<BuddyMemory> MakeTestMemory(uint32_t pages, Tracer& tracer);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_TEST_MEMORY_H_
