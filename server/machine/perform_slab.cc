#include "server/machine/perform_slab.h"

#include <optional>

#include "server/machine/answer.h"

namespace mmlab {
namespace {

Outcome WrongFree(VirtAddr address, const SlabObjectView& view, const Slub& slub) {
  Outcome outcome = Answer(Errno::kEINVAL);
  outcome.data = slub.FaultReport(address, view);
  return outcome;
}

}  // namespace

Outcome PerformSlab(const op::KmemCacheCreate& o, Slub& slub) {
  if (slub.Find(o.cache).has_value()) return Answer(Errno::kEEXIST);
  const SysResult<SlabCacheId> id = slub.CreateCache({o.cache, o.object_size, o.align, o.flags, o.constructor, o.usersize});
  return id.ok() ? Value(slub.View(id.value()).geometry.size) : Answer(id.error());
}

Outcome PerformSlab(const op::KmemCacheDestroy& o, Slub& slub) {
  const std::optional<SlabCacheId> id = slub.Find(o.cache);
  return Answer(id.has_value() ? slub.DestroyCache(*id, o.cache) : Errno::kENOENT);
}

Outcome PerformSlab(const op::KmemCacheShrink& o, Slub& slub) {
  const std::optional<SlabCacheId> id = slub.Find(o.cache);
  return id.has_value() ? Value(slub.Shrink(*id) ? 1 : 0) : Answer(Errno::kENOENT);
}

Outcome PerformSlab(const op::KmemCacheAlloc& o, Gfp gfp, Slub& slub) {
  const std::optional<SlabCacheId> id = slub.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  const std::optional<SlabObject> object = slub.AllocObject(*id, gfp);
  return object.has_value() ? Value(slub.AddressOf(*object).raw()) : Answer(Errno::kENOMEM);
}

Outcome PerformSlab(const op::KmemCacheFree& o, Slub& slub) {
  const std::optional<SlabCacheId> id = slub.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  const SlabObjectView view = slub.Locate(VirtAddr(o.address), id);
  if (view.fault != SlabFault::kNone) return WrongFree(VirtAddr(o.address), view, slub);
  slub.FreeObject(*id, view.object);
  return Value(0);
}

Outcome PerformSlab(const op::Kmalloc& o, Gfp gfp, Slub& slub) {
  const std::optional<VirtAddr> address = slub.Kmalloc(o.size, gfp);
  return address.has_value() ? Value(address->raw()) : Answer(Errno::kENOMEM);
}

Outcome PerformSlab(const op::Krealloc& o, Gfp gfp, Slub& slub) {
  const SysResult<VirtAddr> address = slub.Krealloc(VirtAddr(o.address), o.size, gfp);
  return address.ok() ? Value(address.value().raw()) : Answer(address.error());
}

Outcome PerformSlab(const op::Kfree& o, Slub& slub) {
  const SlabFault fault = slub.Kfree(VirtAddr(o.address));
  return fault == SlabFault::kNone ? Value(0) : WrongFree(VirtAddr(o.address), slub.Locate(VirtAddr(o.address)), slub);
}

Outcome PerformSlab(const op::Ksize& o, Slub& slub) {
  const SysResult<uint64_t> bytes = slub.Ksize(VirtAddr(o.address));
  return bytes.ok() ? Value(bytes.value()) : Answer(bytes.error());
}

}  // namespace mmlab
