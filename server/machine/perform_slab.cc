#include "server/machine/perform_slab.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "server/machine/answer.h"

namespace mmlab {
namespace {

constexpr uint32_t kMaxBulk = 65536;

Outcome WrongFree(VirtAddr address, const SlabObjectView& view, const SlabAllocator& slab) {
  Outcome outcome = Answer(Errno::kEINVAL);
  outcome.data = slab.FaultReport(address, view);
  return outcome;
}

}  // namespace

Outcome PerformSlab(const op::KmemCacheCreate& o, SlabAllocator& slab) {
  if (slab.Find(o.cache).has_value()) return Answer(Errno::kEEXIST);
  const SysResult<SlabCacheId> id = slab.CreateCache({o.cache, o.object_size, o.align, o.flags, o.constructor, o.usersize});
  return id.ok() ? Value(slab.View(id.value()).geometry.size) : Answer(id.error());
}

Outcome PerformSlab(const op::KmemCacheDestroy& o, SlabAllocator& slab) {
  const std::optional<SlabCacheId> id = slab.Find(o.cache);
  return Answer(id.has_value() ? slab.DestroyCache(*id, o.cache) : Errno::kENOENT);
}

Outcome PerformSlab(const op::KmemCacheShrink& o, SlabAllocator& slab) {
  const std::optional<SlabCacheId> id = slab.Find(o.cache);
  return id.has_value() ? Value(slab.Shrink(*id) ? 1 : 0) : Answer(Errno::kENOENT);
}

Outcome PerformSlab(const op::KmemCacheAlloc& o, Gfp gfp, SlabAllocator& slab) {
  const std::optional<SlabCacheId> id = slab.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  const std::optional<SlabObject> object = slab.AllocObject(*id, gfp);
  return object.has_value() ? Value(slab.AddressOf(*object).raw()) : Answer(Errno::kENOMEM);
}

Outcome PerformSlab(const op::KmemCacheFree& o, SlabAllocator& slab) {
  const std::optional<SlabCacheId> id = slab.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  const SlabObjectView view = slab.Locate(VirtAddr(o.address), id);
  if (view.fault != SlabFault::kNone) return WrongFree(VirtAddr(o.address), view, slab);
  slab.FreeObject(*id, *view.object);
  return Value(0);
}

Outcome PerformSlab(const op::KmemCacheAllocBulk& o, Gfp gfp, SlabAllocator& slab) {
  const std::optional<SlabCacheId> id = slab.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  if (o.count > kMaxBulk) return Answer(Errno::kEINVAL);
  std::vector<SlabObject> objects(o.count);
  if (!slab.AllocBulk(*id, gfp, absl::MakeSpan(objects))) return Answer(Errno::kENOMEM);
  Outcome outcome = Value(o.count);
  for (const SlabObject object : objects) outcome.addresses.push_back(slab.AddressOf(object).raw());
  return outcome;
}

Outcome PerformSlab(const op::KmemCacheFreeBulk& o, SlabAllocator& slab) {
  const std::optional<SlabCacheId> id = slab.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  if (o.addresses.size() > kMaxBulk) return Answer(Errno::kEINVAL);
  std::vector<SlabObject> objects;
  std::vector<uint64_t> sorted = o.addresses;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  for (const uint64_t address : o.addresses) {
    SlabObjectView view = slab.Locate(VirtAddr(address), id);
    if (view.fault == SlabFault::kNone && twice != sorted.end() && *twice == address) view.fault = SlabFault::kAlreadyFree;
    if (view.fault != SlabFault::kNone) return WrongFree(VirtAddr(address), view, slab);
    objects.push_back(*view.object);
  }
  slab.FreeBulk(*id, objects);
  return Value(objects.size());
}

Outcome PerformSlab(const op::Kmalloc& o, Gfp gfp, SlabAllocator& slab) {
  const std::optional<VirtAddr> address = slab.Kmalloc(o.size, gfp);
  return address.has_value() ? Value(address->raw()) : Answer(Errno::kENOMEM);
}

Outcome PerformSlab(const op::Krealloc& o, Gfp gfp, SlabAllocator& slab) {
  const SysResult<VirtAddr> address = slab.Krealloc(VirtAddr(o.address), o.size, gfp);
  return address.ok() ? Value(address.value().raw()) : Answer(address.error());
}

Outcome PerformSlab(const op::Kfree& o, SlabAllocator& slab) {
  const SlabFault fault = slab.Kfree(VirtAddr(o.address));
  if (fault == SlabFault::kNone) return Value(0);
  SlabObjectView view = slab.Locate(VirtAddr(o.address));
  view.fault = fault;
  return WrongFree(VirtAddr(o.address), view, slab);
}

Outcome PerformSlab(const op::Ksize& o, SlabAllocator& slab) {
  const SysResult<uint64_t> bytes = slab.Ksize(VirtAddr(o.address));
  return bytes.ok() ? Value(bytes.value()) : Answer(bytes.error());
}

}  // namespace mmlab
