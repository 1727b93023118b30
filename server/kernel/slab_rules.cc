#include "server/kernel/slab_rules.h"

#include <algorithm>
#include <bit>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr uint32_t kMaxObjects = 32767;  // A slab counts its objects in 15 bits.
constexpr uint32_t kMinPartial = 5;
constexpr uint32_t kMaxPartial = 10;
// Flags with which SLUB does not use the double-word exchange.
constexpr SlabFlags kNoCmpxchg = kSlabConsistencyChecks | kSlabStoreUser | kSlabTrace;

uint32_t AlignUp(uint32_t value, uint32_t align) { return (value + align - 1) / align * align; }

uint32_t ObjectsIn(const SlabPlatform& platform, int order, uint32_t size) {
  return static_cast<uint32_t>(std::min<uint64_t>((platform.page_size.bytes().raw() << order) / size, kMaxObjects));
}

// The smallest order that holds `at_least` objects and leaves no more than 1/fraction of the slab unused; beyond max_order when none does.
int OrderWithWaste(const SlabPlatform& platform, uint32_t size, uint32_t at_least, int max_order, uint32_t fraction) {
  if (platform.page_size.bytes().raw() / size > kMaxObjects) return OrderHolding(platform.page_size, uint64_t{size} * kMaxObjects) - 1;
  int order = std::max(platform.options.min_order, OrderHolding(platform.page_size, uint64_t{at_least} * size));
  for (; order <= max_order; ++order) {
    const uint64_t slab = platform.page_size.bytes().raw() << order;
    if (slab % size <= slab / fraction) break;
  }
  return order;
}

// calculate_order(): first asks for many objects and little waste, then accepts more waste, then fewer objects. -1: too large for any slab.
int ChooseOrder(const SlabPlatform& platform, uint32_t size) {
  const int max_order = platform.options.max_order;
  const uint32_t by_cpus = 4 * (static_cast<uint32_t>(std::bit_width(static_cast<uint32_t>(platform.cpus))) + 1);
  const uint32_t wanted = platform.options.min_objects != 0 ? platform.options.min_objects : by_cpus;
  for (uint32_t at_least = std::min(wanted, ObjectsIn(platform, max_order, size)); at_least > 1; --at_least) {
    for (const uint32_t fraction : {16u, 8u, 4u}) {
      const int order = OrderWithWaste(platform, size, at_least, max_order, fraction);
      if (order <= max_order) return order;
    }
  }
  const int one = std::max(platform.options.min_order, OrderHolding(platform.page_size, size));
  return one <= kMaxOrder ? one : -1;
}

// How many bytes each object takes with its free pointer, guards and tracks.
void PlaceObject(const SlabPlatform& platform, bool constructor, SlabGeometry& g) {
  uint32_t size = AlignUp(g.object_size, platform.word);
  const bool poison_object = (g.flags & kSlabPoison) != 0 && (g.flags & kSlabTypesafeByRcu) == 0 && !constructor;
  g.flags = poison_object ? g.flags | kSlabObjectPoison : g.flags & ~kSlabObjectPoison;
  if ((g.flags & kSlabRedZone) != 0 && size == g.object_size) size += platform.word;
  g.inuse = size;
  const bool outside = (g.flags & (kSlabTypesafeByRcu | kSlabPoison)) != 0 || constructor ||
                       ((g.flags & kSlabRedZone) != 0 && g.object_size < platform.word);
  if (outside) {
    g.free_ptr_offset = size;
    size += platform.word;
  } else {
    g.free_ptr_offset = g.object_size / 2 / platform.word * platform.word;
  }
  if ((g.flags & kSlabStoreUser) != 0) {
    size += 2 * platform.track_bytes;
    if ((g.flags & kSlabKmalloc) != 0) size += 4;  // What was asked of kmalloc, an unsigned int.
  }
  if ((g.flags & kSlabRedZone) != 0) {
    g.red_left_pad = AlignUp(platform.word, g.align);
    size += platform.word + g.red_left_pad;
  }
  g.size = AlignUp(size, g.align);
}

uint32_t CpuPartialObjects(const SlabPlatform& platform, const SlabGeometry& g) {
  if (g.debug()) return 0;
  if (g.size >= platform.page_size.bytes().raw()) return 6;
  if (g.size >= 1024) return 24;
  return g.size >= 256 ? 52 : 120;
}

}  // namespace

SlabPlatform SlabPlatformOf(const Layout& layout, int cpus, SlabAllocatorKind allocator) {
  SlabPlatform platform;
  platform.allocator = allocator;
  platform.word = static_cast<uint32_t>(layout.word_bytes);
  platform.kmalloc_align = layout.is_x86() ? 8 : 128;                        // ARM64 has to assume devices that do not see its caches.
  const uint32_t smallest = allocator == SlabAllocatorKind::kSlab ? 32 : 8;  // KMALLOC_SHIFT_LOW
  platform.kmalloc_min = std::max(platform.kmalloc_align, smallest);
  platform.track_bytes = layout.is_x86() ? 20 : 32;
  platform.physical_word = layout.kind == LayoutKind::kX86_32 ? 4 : 8;
  platform.page_size = layout.page_size;
  platform.cpus = cpus;
  return platform;
}

SlabFlags SlabCreateMaskOf(SlabAllocatorKind allocator) {
  constexpr SlabFlags kCore = kSlabHwcacheAlign | kSlabCacheDma | kSlabCacheDma32 | kSlabPanic | kSlabTypesafeByRcu | kSlabNoLeakTrace;
  switch (allocator) {
    case SlabAllocatorKind::kSlub:
      return kCore | kSlabDebugFlags | kSlabReclaimAccount | kSlabAccount | kSlabNoUserFlags;
    case SlabAllocatorKind::kSlab:
      return kCore | kSlabMemSpread | kSlabReclaimAccount | kSlabAccount;  // Without CONFIG_DEBUG_SLAB.
    case SlabAllocatorKind::kSlob:
      break;
  }
  return kCore;
}

int OrderHolding(PageSize page_size, uint64_t bytes) {
  MMLAB_CHECK(bytes > 0);
  return std::bit_width((bytes - 1) >> page_size.shift());
}

uint32_t SlabAlignment(const SlabPlatform& platform, SlabFlags flags, uint32_t align, uint32_t size) {
  if ((flags & kSlabHwcacheAlign) != 0) {
    uint32_t line = platform.cache_line;
    while (size <= line / 2) line /= 2;
    align = std::max(align, line);
  }
  align = std::max(align, uint32_t{8});  // arch_slab_minalign(): that of unsigned long long.
  return AlignUp(align, platform.word);
}

SlabGeometry SlubGeometry(const SlabPlatform& platform, uint32_t object_size, uint32_t align, SlabFlags flags, bool constructor) {
  SlabGeometry g;
  g.object_size = object_size;
  g.align = align;
  g.flags = flags;
  PlaceObject(platform, constructor, g);
  constexpr SlabFlags kMetadata = kSlabRedZone | kSlabPoison | kSlabStoreUser;
  if (platform.options.no_higher_order_debug && g.size != 0 &&
      OrderHolding(platform.page_size, g.size) > OrderHolding(platform.page_size, object_size)) {
    g.flags &= ~kMetadata;
    g.red_left_pad = 0;
    PlaceObject(platform, constructor, g);
  }
  const int order = g.size == 0 ? -1 : ChooseOrder(platform, g.size);
  if (order < 0) return SlabGeometry();
  if ((g.flags & kNoCmpxchg) == 0) g.flags |= kSlabCmpxchgDouble;
  g.order = order;
  g.objects = ObjectsIn(platform, order, g.size);
  g.min_order = OrderHolding(platform.page_size, g.size);
  g.min_objects = ObjectsIn(platform, g.min_order, g.size);
  g.min_partial = std::clamp(static_cast<uint32_t>(std::bit_width(g.size) - 1) / 2, kMinPartial, kMaxPartial);
  g.cpu_partial = CpuPartialObjects(platform, g);
  g.cpu_partial_slabs = (2 * g.cpu_partial + g.objects - 1) / g.objects;
  if (order > 0) g.alloc_gfp |= kGfpComp;
  if ((flags & kSlabCacheDma) != 0) g.alloc_gfp |= kGfpZoneDma;
  if ((flags & kSlabCacheDma32) != 0) g.alloc_gfp |= kGfpZoneDma32;
  if ((flags & kSlabReclaimAccount) != 0) g.alloc_gfp |= kGfpReclaimable;
  return g;
}

SlabGeometry GeometryOf(const SlabPlatform& platform, uint32_t object_size, uint32_t align, SlabFlags flags, bool constructor) {
  switch (platform.allocator) {
    case SlabAllocatorKind::kSlub:
      return SlubGeometry(platform, object_size, align, flags, constructor);
    case SlabAllocatorKind::kSlab:
      return ClassicSlabGeometry(platform, object_size, align, flags, constructor);
    case SlabAllocatorKind::kSlob:
      break;
  }
  return SlobGeometry(platform, object_size, align, flags);
}

bool IsSlabGeometry(const SlabPlatform& platform, const SlabGeometry& g) {
  const auto fits = [&](int order, uint32_t objects) {
    return order >= 0 && order <= kMaxOrder && objects >= 1 && objects <= kMaxObjects &&
           uint64_t{objects} * g.size + g.red_left_pad <= platform.page_size.bytes().raw() << order;
  };
  return g.size > 0 && std::has_single_bit(g.align) && fits(g.order, g.objects) && fits(g.min_order, g.min_objects) &&
         g.min_order <= g.order && g.min_objects <= g.objects;
}

std::optional<SlabinfoCounts> ParseSlabinfoLine(absl::string_view line) {
  // NAME ACTIVE TOTAL SIZE PER-SLAB PAGES : tunables L B S : slabdata ACTIVE-SLABS SLABS SHARED
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  if (words.size() != 16 || words[6] != ":" || words[12] != "slabdata" || words[0].size() > 64) return std::nullopt;
  SlabinfoCounts counts;
  counts.name = std::string(words[0]);
  const bool numbers = absl::SimpleAtoi(words[1], &counts.active_objects) && absl::SimpleAtoi(words[2], &counts.total_objects) &&
                       absl::SimpleAtoi(words[5], &counts.pages_per_slab) && absl::SimpleAtoi(words[14], &counts.slabs);
  constexpr uint32_t kMost = 1u << 24;
  if (!numbers || counts.slabs == 0 || counts.slabs > kMost || counts.pages_per_slab == 0 || counts.pages_per_slab > 1u << kMaxOrder ||
      counts.total_objects > kMost || counts.active_objects > counts.total_objects) {
    return std::nullopt;
  }
  return counts;
}

KmallocType KmallocTypeOf(Gfp gfp) {
  if ((gfp & kGfpZoneDma) != 0) return KmallocType::kDma;
  if ((gfp & kGfpReclaimable) != 0) return KmallocType::kReclaim;
  return (gfp & kGfpAccount) != 0 ? KmallocType::kCgroup : KmallocType::kNormal;
}

int KmallocIndex(const SlabPlatform& platform, uint64_t bytes) {
  MMLAB_CHECK(bytes >= 1 && bytes <= KmallocMaxCacheSize(platform));
  if (platform.kmalloc_min <= 32 && bytes > 64 && bytes <= 96) return 1;
  if (platform.kmalloc_min <= 64 && bytes > 128 && bytes <= 192) return 2;
  return std::bit_width(std::max<uint64_t>(bytes, platform.kmalloc_min) - 1);
}

uint32_t KmallocClassSize(int index) {
  if (index == 1) return 96;
  return index == 2 ? 192 : uint32_t{1} << index;
}

std::string KmallocName(KmallocType type, int index) {
  constexpr const char* kPrefix[kKmallocTypes] = {"kmalloc-", "kmalloc-cg-", "kmalloc-rcl-", "dma-kmalloc-"};
  const uint32_t size = KmallocClassSize(index);
  const char* prefix = kPrefix[static_cast<size_t>(type)];
  return size >= 1024 ? absl::StrCat(prefix, size / 1024, "k") : absl::StrCat(prefix, size);
}

uint64_t KmallocMaxCacheSize(const SlabPlatform& platform) { return platform.page_size.bytes().raw() << 1; }

}  // namespace mmlab
