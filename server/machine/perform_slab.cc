#include "server/machine/perform_slab.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/machine/answer.h"
#include "server/machine/perform_pages.h"
#include "server/physical/contents.h"

namespace mmlab {
namespace {

constexpr uint32_t kMaxBulk = 65536;

Outcome KernelHolds() {
  Outcome outcome = Answer(Errno::kEBUSY);
  outcome.data = "the kernel itself holds this object\n";
  return outcome;
}

}  // namespace

std::optional<Outcome> SlabPerformer::Refusal(VirtAddr address, const SlabObjectView& view) {
  if (slab_.InBootSlab(address)) return KernelHolds();
  if (view.fault != SlabFault::kNone) return Reported(Errno::kEINVAL, slab_.FaultReport(address, view));
  if (!Kernels(view)) return std::nullopt;
  return KernelHolds();
}

Outcome SlabPerformer::Reported(Errno error, std::string report) {
  Outcome outcome = Answer(error);
  outcome.data = std::move(report);
  absl::string_view text = outcome.data;
  absl::ConsumeSuffix(&text, "\n");
  for (absl::string_view line : absl::StrSplit(text, '\n')) log_.Log(LogLevel::kError, std::string(line));
  return outcome;
}

bool SlabPerformer::Kernels(const SlabObjectView& view) const {
  return view.cache.has_value() && kernels_.Holds(*view.cache, *view.object);
}

void SlabPerformer::ForEachPage(VirtAddr address, uint64_t size, absl::FunctionRef<void(Pfn, uint64_t, uint64_t, uint64_t)> visit) const {
  const PageSize page_size = memory_.page_size();
  for (uint64_t done = 0; done < size;) {
    const uint64_t offset = (address - slab_.AddressOfPage(Pfn(0))).raw() + done;
    const uint64_t count = std::min(size - done, page_size.bytes().raw() - (offset & page_size.mask()));
    visit(Pfn(offset >> page_size.shift()), offset & page_size.mask(), done, count);
    done += count;
  }
}

void SlabPerformer::Zero(VirtAddr address, uint64_t size) {
  ForEachPage(address, size, [&](Pfn pfn, uint64_t offset, uint64_t, uint64_t count) {
    if (memory_.contents().BytesIfAny(pfn) == nullptr) return;  // All of it is zero.
    const std::string zeros(count, '\0');
    memory_.contents().Write(pfn, offset, zeros.data(), count);
  });
}

Outcome SlabPerformer::Perform(const op::KmemCacheCreate& o) {
  if (slab_.Find(o.cache).has_value()) return Answer(Errno::kEEXIST);
  const SysResult<SlabCacheId> id = slab_.CreateCache({o.cache, o.object_size, o.align, o.flags, o.constructor, o.usersize});
  return id.ok() ? Value(slab_.View(id.value()).geometry.size) : Answer(id.error());
}

Outcome SlabPerformer::Perform(const op::KmemCacheDestroy& o) {
  const std::optional<SlabCacheId> id = slab_.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  const Errno error = slab_.DestroyCache(*id, o.cache);
  if (error != Errno::kEBUSY || slab_.View(*id).permanent) return Answer(error);
  return Reported(Errno::kEBUSY, slab_.RemainingReport(*id));
}

Outcome SlabPerformer::Perform(const op::KmemCacheShrink& o) {
  const std::optional<SlabCacheId> id = slab_.Find(o.cache);
  return id.has_value() ? Value(slab_.Shrink(*id) ? 1 : 0) : Answer(Errno::kENOENT);
}

Outcome SlabPerformer::Perform(const op::KmemCacheAlloc& o) {
  const std::optional<SlabCacheId> id = slab_.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  const std::optional<SlabObject> object = slab_.AllocObject(*id, GfpOf(o.gfp));
  slab_.TellAlloc(*id, object, GfpOf(o.gfp));
  if (!object.has_value()) return Answer(Errno::kENOMEM);
  const VirtAddr address = slab_.AddressOf(*object);
  if (o.zero) Zero(address, slab_.View(*id).geometry.object_size);
  return Value(address.raw());
}

Outcome SlabPerformer::Perform(const op::KmemCacheFree& o) {
  const std::optional<SlabCacheId> id = slab_.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  const SlabObjectView view = slab_.Locate(VirtAddr(o.address), id);
  if (std::optional<Outcome> refusal = Refusal(VirtAddr(o.address), view)) return *std::move(refusal);
  slab_.TellFree(*id, *view.object);
  slab_.FreeObject(*id, *view.object);
  return Value(0);
}

Outcome SlabPerformer::Perform(const op::KmemCacheAllocBulk& o) {
  const std::optional<SlabCacheId> id = slab_.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  if (o.count > kMaxBulk) return Answer(Errno::kEINVAL);
  std::vector<SlabObject> objects(o.count);
  if (!slab_.AllocBulk(*id, GfpOf(o.gfp), absl::MakeSpan(objects))) return Answer(Errno::kENOMEM);
  Outcome outcome = Value(o.count);
  for (const SlabObject object : objects) outcome.addresses.push_back(slab_.AddressOf(object).raw());
  return outcome;
}

Outcome SlabPerformer::Perform(const op::KmemCacheFreeBulk& o) {
  const std::optional<SlabCacheId> id = slab_.Find(o.cache);
  if (!id.has_value()) return Answer(Errno::kENOENT);
  if (o.addresses.size() > kMaxBulk) return Answer(Errno::kEINVAL);
  std::vector<SlabObject> objects;
  const std::vector<SlabObject> kernels = kernels_.HeldIn(*id);
  std::vector<uint64_t> sorted = o.addresses;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  for (const uint64_t address : o.addresses) {
    SlabObjectView view = slab_.Locate(VirtAddr(address), id);
    if (view.fault == SlabFault::kNone && twice != sorted.end() && *twice == address) view.fault = SlabFault::kAlreadyFree;
    if (view.fault != SlabFault::kNone) return *Refusal(VirtAddr(address), view);
    if (std::binary_search(kernels.begin(), kernels.end(), *view.object, KernelObjects::Precedes)) return KernelHolds();
    objects.push_back(*view.object);
  }
  slab_.FreeBulk(*id, objects);
  return Value(objects.size());
}

Outcome SlabPerformer::Perform(const op::Kmalloc& o) {
  const std::optional<VirtAddr> address = slab_.Kmalloc(o.size, GfpOf(o.gfp));
  slab_.TellKmalloc(o.size, address, GfpOf(o.gfp));
  if (!address.has_value()) return Answer(Errno::kENOMEM);
  if (o.zero && o.size > 0) Zero(*address, slab_.Ksize(*address).value());
  return Value(address->raw());
}

Outcome SlabPerformer::Perform(const op::Krealloc& o) {
  const SlabObjectView view = slab_.Locate(VirtAddr(o.address));
  if (view.fault == SlabFault::kNone && Kernels(view)) return KernelHolds();
  const SysResult<VirtAddr> address = slab_.Krealloc(VirtAddr(o.address), o.size, GfpOf(o.gfp));
  if (address.ok() && address.value().raw() != o.address) {
    slab_.TellKmalloc(o.size, address.value(), GfpOf(o.gfp));
    if (o.address > SlabAllocator::kZeroSizePtr) slab_.TellKfree(VirtAddr(o.address));
  }
  return address.ok() ? Value(address.value().raw()) : Answer(address.error());
}

Outcome SlabPerformer::Perform(const op::Kfree& o) {
  SlabObjectView view = slab_.Locate(VirtAddr(o.address));
  if (view.fault == SlabFault::kNone && Kernels(view)) return KernelHolds();
  slab_.TellKfree(VirtAddr(o.address));
  view.fault = slab_.Kfree(VirtAddr(o.address));
  if (view.fault == SlabFault::kNone) return Value(0);
  return *Refusal(VirtAddr(o.address), view);
}

Outcome SlabPerformer::Perform(const op::WriteSlabinfo& o) {
  return Answer(slab_.kind() == SlabAllocatorKind::kSlob ? Errno::kENOENT : slab_.WriteSlabinfo(o.line));
}

Outcome SlabPerformer::Perform(const op::WriteSlabMemory& o) {
  const VirtAddr address(o.address);
  if (slab_.InBootSlab(address)) return KernelHolds();
  SlabObjectView view = slab_.Locate(address);
  if (view.fault == SlabFault::kNotSlab && !view.object.has_value()) return Answer(Errno::kEFAULT);
  if (view.object.has_value()) view = slab_.Locate(view.start);
  if (view.fault == SlabFault::kNone && Kernels(view)) return KernelHolds();
  const SysResult<uint64_t> usable = slab_.Ksize(view.start);
  const uint64_t size = view.cache.has_value() ? slab_.View(*view.cache).geometry.object_size : usable.ok() ? usable.value() : 0;
  const bool inside = address >= view.start && (address - view.start).raw() + o.data.size() <= size;
  if (view.fault == SlabFault::kNone && inside) {
    ForEachPage(address, o.data.size(), [&](Pfn pfn, uint64_t offset, uint64_t done, uint64_t count) {
      memory_.contents().Write(pfn, offset, o.data.data() + done, count);
    });
    return Value(o.data.size());
  }
  std::string report = view.object.has_value() ? slab_.OverwriteReport(address, o.data, view) : "";
  if (report.empty()) return Value(0);
  return Reported(Errno::kEINVAL, std::move(report));
}

Outcome SlabPerformer::Perform(const op::Ksize& o) {
  const SysResult<uint64_t> bytes = slab_.Ksize(VirtAddr(o.address));
  return bytes.ok() ? Value(bytes.value()) : Answer(bytes.error());
}

}  // namespace mmlab
