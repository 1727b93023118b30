// What the checks of SLUB write to the kernel's log. Linux: slab_bug(), print_trailer(), check_bytes_and_report(), mm/slub.c.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/kernel/slab_report.h"
#include "server/kernel/slub.h"

namespace mmlab {

std::string Slub::FaultReport(VirtAddr address, const SlabObjectView& view) const {
  if (!view.object.has_value()) {
    return absl::StrFormat("object pointer: 0x%x\nWARNING: free_large_kmalloc: not a slab object\n", address.raw());
  }
  const Slab& slab = slabs_[view.object->slab];
  const Cache& cache = *caches_[slab.cache];
  const int digits = static_cast<int>(2 * platform_.word);
  const uint64_t base = linear_base_ + (uint64_t{slab.pfn} << platform_.page_size.shift());
  const auto pointer_to = [&](uint16_t index) {
    return index < slab.objects ? base + cache.geometry.red_left_pad + uint64_t{index} * cache.geometry.size : 0;
  };
  std::string what;
  switch (view.fault) {
    case SlabFault::kAlreadyFree:
      what = "Object already free";
      break;
    case SlabFault::kWrongCache:
      what = "page slab pointer corrupt.";
      break;
    default:
      what = absl::StrFormat("Invalid object pointer 0x%0*x", digits, address.raw());
      break;
  }
  std::string text = absl::StrFormat("%s\nBUG %s (Not tainted): %s\n%s\n\n", std::string(77, '='), cache.name, what, std::string(77, '-'));
  absl::StrAppendFormat(&text, "Slab 0x%0*x objects=%u used=%u fp=0x%0*x\n", digits, base, slab.objects, slab.inuse, digits,
                        pointer_to(slab.freelist));
  if (view.fault != SlabFault::kNoObject) {
    absl::StrAppendFormat(&text, "Object 0x%0*x @offset=%u fp=0x%0*x\n\n", digits, address.raw(),
                          static_cast<uint32_t>(address.raw() - base), digits, pointer_to(slab.links[view.object->index]));
  }
  absl::StrAppend(&text, "FIX ", cache.name, ": Object at 0x", absl::Hex(address.raw()), " not freed\n");
  return text;
}

// A write that the checks find when they next look at the object: with poison (the object is free) or guard words beside it.
std::string Slub::OverwriteReport(VirtAddr address, absl::string_view bytes, const SlabObjectView& view) const {
  const Slab& slab = slabs_[view.object->slab];
  const Cache& cache = *caches_[slab.cache];
  const SlabGeometry& g = cache.geometry;
  const int digits = static_cast<int>(2 * platform_.word);
  const uint64_t base = linear_base_ + (uint64_t{slab.pfn} << platform_.page_size.shift());
  const bool free = slab.links[view.object->index] != kAllocated;
  // What the checks expect in the part that they look at.
  const uint64_t object = view.start.raw();
  const bool below = address < view.start;
  std::string expected(g.object_size, static_cast<char>(kPoisonFree));
  expected.back() = static_cast<char>(kPoisonEnd);
  uint64_t part = object;
  const char* what = "Poison";
  if (!free) {
    what = below ? "Left Redzone" : "Right Redzone";
    part = below ? base : object + g.object_size;
    expected.assign(below ? object - base : bytes.size(), static_cast<char>(kRedActive));
  }
  std::string found = expected;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint64_t at = address.raw() + i;
    if (at >= part && at - part < found.size()) found[at - part] = bytes[i];
  }
  const auto [first, first_expected] = std::mismatch(found.begin(), found.end(), expected.begin());
  if (first == found.end()) return "";
  size_t end = found.size();
  while (found[end - 1] == expected[end - 1]) --end;
  const uint64_t fault = part + static_cast<uint64_t>(first - found.begin());
  const uint8_t value = static_cast<uint8_t>(*first_expected);
  std::string text =
      absl::StrFormat("%s\nBUG %s (Not tainted): %s overwritten\n%s\n\n", std::string(77, '='), cache.name, what, std::string(77, '-'));
  absl::StrAppendFormat(&text, "0x%0*x-0x%0*x @offset=%u. First byte 0x%x instead of 0x%x\n", digits, fault, digits, part + end - 1,
                        static_cast<uint32_t>(fault - base), static_cast<uint8_t>(*first), value);
  absl::StrAppendFormat(&text, "Slab 0x%0*x objects=%u used=%u fp=0x%0*x\n", digits, base, slab.objects, slab.inuse, digits,
                        slab.freelist < slab.objects ? AddressOf({view.object->slab, slab.freelist}).raw() : 0);
  absl::StrAppendFormat(&text, "Object 0x%0*x @offset=%u fp=0x%0*x\n\n", digits, object, static_cast<uint32_t>(object - base), digits, 0);
  AppendHexDump(&text, free ? "Object   " : "Redzone  ", part, found, digits);
  absl::StrAppendFormat(&text, "FIX %s: Restoring %s 0x%0*x-0x%0*x=0x%x\n", cache.name, what, digits, fault, digits, part + end - 1, value);
  return text;
}

// list_slab_objects(): of the slabs on the node's list; those without free objects are on none.
std::string Slub::RemainingReport(SlabCacheId id) const {
  constexpr int kMostSlabs = 100;
  const Cache& cache = CacheOf(id);
  const int digits = static_cast<int>(2 * platform_.word);
  std::string text;
  int slabs = 0;
  for (uint32_t at = cache.partial_head; at != kNoSlab && slabs < kMostSlabs; at = slabs_[at].next, ++slabs) {
    const Slab& slab = slabs_[at];
    const uint64_t base = linear_base_ + (uint64_t{slab.pfn} << platform_.page_size.shift());
    absl::StrAppendFormat(&text, "%s\nBUG %s (Not tainted): Objects remaining in %s on __kmem_cache_shutdown()\n%s\n\n",
                          std::string(77, '='), cache.name, cache.name, std::string(77, '-'));
    absl::StrAppendFormat(&text, "Slab 0x%0*x objects=%u used=%u fp=0x%0*x\n", digits, base, slab.objects, slab.inuse, digits,
                          slab.freelist < slab.objects ? AddressOf({at, slab.freelist}).raw() : 0);
    for (uint32_t index = 0; index < slab.objects; ++index) {
      if (slab.links[index] != kAllocated) continue;
      const uint64_t object = AddressOf({at, index}).raw();
      absl::StrAppendFormat(&text, "Object 0x%0*x @offset=%u\n", digits, object, static_cast<uint32_t>(object - base));
    }
  }
  return text + SlabAllocator::RemainingReport(id);
}

}  // namespace mmlab
