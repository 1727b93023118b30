// What tracing sees of the slab allocators. Linux: include/trace/events/kmem.h.
#include "server/base/event.h"
#include "server/kernel/slab_allocator.h"

namespace mmlab {
namespace {

constexpr char kNoCallSite[] = "0x0";  // The code that calls is not simulated.
constexpr int kNoNode = -1;            // NUMA_NO_NODE: any.

const char* Truth(bool value) { return value ? "true" : "false"; }

}  // namespace

void SlabAllocator::TellAlloc(SlabCacheId id, std::optional<SlabObject> object, Gfp gfp) const {
  EventSink* events = tracer_.events();
  if (events == nullptr || !events->wants(EventKind::kKmemCacheAlloc)) return;
  const SlabGeometry& geometry = InfoOf(static_cast<size_t>(id))->geometry;
  const bool accounted = (gfp & kGfpAccount) != 0 || (geometry.flags & kSlabAccount) != 0;
  events->Emit(EventKind::kKmemCacheAlloc, {kNoCallSite, object.has_value() ? AddressOf(*object).raw() : 0, geometry.object_size,
                                            geometry.size, GfpText(gfp), kNoNode, Truth(accounted)});
}

void SlabAllocator::TellFree(SlabCacheId id, SlabObject object) const {
  EventSink* events = tracer_.events();
  if (events == nullptr || !events->wants(EventKind::kKmemCacheFree)) return;
  events->Emit(EventKind::kKmemCacheFree, {kNoCallSite, AddressOf(object).raw(), InfoOf(static_cast<size_t>(id))->name});
}

void SlabAllocator::TellKmalloc(uint64_t bytes, std::optional<VirtAddr> address, Gfp gfp) const {
  EventSink* events = tracer_.events();
  if (events == nullptr || bytes == 0 || !events->wants(EventKind::kKmalloc)) return;
  uint64_t taken = 0;
  if (address.has_value()) {
    const SysResult<uint64_t> usable = Ksize(*address);
    taken = usable.ok() ? usable.value() : 0;
  }
  events->Emit(EventKind::kKmalloc, {kNoCallSite, address.has_value() ? address->raw() : 0, bytes, taken, GfpText(gfp), kNoNode,
                                     Truth((gfp & kGfpAccount) != 0)});
}

void SlabAllocator::TellKfree(VirtAddr address) const {
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kKfree, {kNoCallSite, address.raw()});
}

}  // namespace mmlab
