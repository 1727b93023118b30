#include "server/kernel/kernel_objects.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/kernel/slot_table.h"
#include "server/physical/memory_controller.h"

namespace mmlab {
namespace {

// The cache of each kind; where it was merged into another, that one is looked for too. Without a name: bytes of a kmalloc(), by the size
// of a word; `account`: as GFP_KERNEL_ACCOUNT asks for them.
struct CacheNames {
  const char* name;
  const char* merged_x86 = nullptr;
  const char* merged_arm64 = nullptr;
  uint32_t bytes_x86 = 0;
  uint32_t bytes_arm64 = 0;
  bool account = false;
};
constexpr CacheNames kCacheNames[kKernelObjects] = {
    {"task_struct"},
    {nullptr},
    {"cred_jar"},
    {"files_cache"},
    {"fs_cache", "pid", "anon_vma_chain"},
    {"sighand_cache"},
    {"signal_cache"},
    {"pid"},
    {"mm_struct"},
    {"vm_area_struct"},
    {"anon_vma"},
    {"anon_vma_chain"},
    {"maple_node"},
    {"filp"},
    {"dentry"},
    {"inode_cache"},
    {"shmem_inode_cache"},
    {"hugetlbfs_inode_cache"},
    {"bdev_cache"},
    {"lsm_file_cache"},
    {nullptr, nullptr, nullptr, 28, 56},          // apparmor and tomoyo: pointers and a token.
    {nullptr, nullptr, nullptr, 8, 16},           // apparmor and landlock: a pointer each.
    {nullptr, nullptr, nullptr, 112, 168, true},  // struct pipe_inode_info
    {nullptr, nullptr, nullptr, 320, 640, true},  // 16 struct pipe_buffer
    {"radix_tree_node"},
    {"vmap_area", "pgd_cache"},
    {nullptr, nullptr, nullptr, 32, 64},  // struct vm_struct, without PAE.
    {"kmem_cache"},
    {"kmem_cache_node", "kmalloc-64", "kmalloc-128"},  // Under SLAB struct kmem_cache_node is a kmalloc().
};
constexpr uint32_t kPaeVmStruct = 36;

// Whether objects of the kind come from kmalloc(), as other people's do.
bool IsKmalloc(KernelObject kind) { return kCacheNames[static_cast<size_t>(kind)].name == nullptr && kind != KernelObject::kKernelStack; }

// Whether alike_ lists objects of the kind from their making on; those of kVmStruct, whose number SetCount() keeps, it does anyway.
bool IsListed(KernelObject kind) { return IsKmalloc(kind) && kind != KernelObject::kVmStruct; }

}  // namespace

uint64_t MapleNodes(uint64_t vmas, uint64_t holes, int word_bytes) {
  if (vmas == 0) return 0;
  const uint64_t leaf = word_bytes == 8 ? 16 : 32;
  const uint64_t inner = word_bytes == 8 ? 8 : 16;  // In use, of 10 or 21.
  const uint64_t entries = vmas + holes + 1;
  if (entries <= leaf) return 1;
  const uint64_t used = leaf * 3 / 4;
  uint64_t nodes = 0;
  for (uint64_t level = (entries + used - 1) / used; level > 1; level = (level + inner - 1) / inner) nodes += level;
  return nodes + 1;
}

uint32_t KernelObjects::Take(KernelObject kind) {
  const uint32_t number = TakeSlot(slots_, free_slots_);
  Slot& slot = slots_[number];
  slot.state = State::kNoted;
  slot.kind = kind;
  notes_.push_back(number * 2);
  if (MemoryController* charger = source_.Charger(); charger != nullptr) [[unlikely]] {
    if (const uint16_t owner = charger->ObjectOwner(); owner != 0) {
      if (owners_.size() <= number) owners_.resize(slots_.size());
      owners_[number] = owner;
    }
  }
  return number;
}

void KernelObjects::Drop(uint32_t number) { notes_.push_back(number * 2 + 1); }

void KernelObjects::DropOne(KernelObject kind) {
  std::vector<uint32_t>& alike = alike_[Index(kind)];
  MMLAB_CHECK(!alike.empty());
  Drop(alike.back());
  alike.pop_back();
}

bool KernelObjects::Settle() {
  bool complete = true;
  for (size_t i = 0; i < notes_.size(); ++i) {  // NOLINT(modernize-loop-convert): allocating may end a process, which adds notes.
    const uint32_t number = notes_[i] / 2;
    if (notes_[i] % 2 == 0) {
      complete = Acquire(number) && complete;
    } else {
      Release(number);
    }
  }
  notes_.clear();
  return complete;
}

std::optional<SlabCacheId> KernelObjects::CacheOf(SlabAllocator& slab, KernelObject kind) {
  std::optional<SlabCacheId>& cache = caches_[Index(kind)];
  if (looked_up_[Index(kind)]) return cache;
  looked_up_[Index(kind)] = true;
  const CacheNames& names = kCacheNames[Index(kind)];
  const SlabPlatform& platform = slab.platform();
  const bool x86 = platform.word == 4;
  if (names.name == nullptr) {
    const bool pae = x86 && platform.physical_word == 8;
    const uint32_t bytes = kind == KernelObject::kVmStruct && pae ? kPaeVmStruct : x86 ? names.bytes_x86 : names.bytes_arm64;
    cache = slab.KmallocCache(bytes, names.account ? kGfpKernelAccount : kGfpKernel);
  } else {
    cache = slab.Find(names.name);
    const char* const merged = x86 ? names.merged_x86 : names.merged_arm64;
    if (!cache.has_value() && merged != nullptr) cache = slab.Find(merged);
    MMLAB_CHECK(cache.has_value() || slab.kind() != SlabAllocatorKind::kSlub);
  }
  if (cache.has_value()) costs_[Index(kind)] = CostOf(slab, *cache, kind);
  return cache;
}

// With SLOB there is no accounting of objects (CONFIG_MEMCG_KMEM). The nodes of page caches are asked for with __GFP_ACCOUNT.
KernelObjects::Cost KernelObjects::CostOf(const SlabAllocator& slab, SlabCacheId cache, KernelObject kind) const {
  const SlabGeometry geometry = slab.View(cache).geometry;
  if (slab.kind() == SlabAllocatorKind::kSlob) return {};
  if ((geometry.flags & kSlabAccount) == 0 && kind != KernelObject::kXarrayNode) return {};
  const auto pointer = static_cast<uint32_t>(slab.platform().word);
  return {static_cast<uint32_t>(geometry.size) + pointer, (geometry.flags & kSlabReclaimAccount) != 0};
}

// memcg_slab_pre_alloc_hook() and what follows.
std::optional<SlabObject> KernelObjects::AllocObject(uint32_t number, KernelObject kind, SlabCacheId cache) {
  SlabAllocator& slab = source_.Slab();
  const uint16_t owner = OwnerOf(number);
  const Cost cost = costs_[Index(kind)];
  const bool charged = owner != 0 && cost.bytes > 0;
  if (charged && !source_.Charger()->ChargeObject(owner, cost.bytes, cost.reclaimable, kGfpKernel)) return std::nullopt;
  const std::optional<SlabObject> object = slab.AllocObject(cache, kGfpKernel);
  slab.TellAlloc(cache, object, kGfpKernel);
  if (charged && !object.has_value()) source_.Charger()->UnchargeObject(owner, cost.bytes, cost.reclaimable);
  return object;
}

bool KernelObjects::Acquire(uint32_t number) {
  const KernelObject kind = slots_[number].kind;
  std::optional<uint64_t> where;
  if (kind == KernelObject::kKernelStack) {
    if (const std::optional<VirtAddr> stack = source_.AllocStack()) where = stack->raw();
  } else {
    const std::optional<SlabCacheId> cache = CacheOf(source_.Slab(), kind);
    if (!cache.has_value()) {
      slots_[number].state = State::kFailed;
      return true;
    }
    if (const std::optional<SlabObject> object = AllocObject(number, kind, *cache)) where = Key(*object);
  }
  Slot& slot = slots_[number];
  slot.state = where.has_value() ? State::kHeld : State::kFailed;
  slot.where = where.value_or(0) & (~uint64_t{0} >> 8);
  if (!where.has_value()) return false;
  ++held_[Index(kind)];
  if (IsListed(kind)) alike_[Index(kind)].push_back(number);
  return true;
}

void KernelObjects::Release(uint32_t number) {
  const Slot slot = slots_[number];
  MMLAB_CHECK(slot.state == State::kHeld || slot.state == State::kFailed);
  if (slot.state == State::kHeld) {
    --held_[Index(slot.kind)];
    if (IsListed(slot.kind)) {
      std::vector<uint32_t>& alike = alike_[Index(slot.kind)];
      alike.erase(std::next(std::find(alike.rbegin(), alike.rend(), number)).base());
    }
    if (slot.kind == KernelObject::kKernelStack) {
      source_.FreeStack(StackOf(slot.where));
    } else {
      SlabAllocator& slab = source_.Slab();
      const SlabCacheId cache = *CacheOf(slab, slot.kind);
      slab.TellFree(cache, ObjectOf(slot.where));
      slab.FreeObject(cache, ObjectOf(slot.where));
      const Cost cost = costs_[Index(slot.kind)];
      const uint16_t owner = OwnerOf(number);
      if (owner != 0 && cost.bytes > 0) source_.Charger()->UnchargeObject(owner, cost.bytes, cost.reclaimable);
    }
  }
  if (number < owners_.size()) owners_[number] = 0;
  slots_[number] = Slot();
  free_slots_.push_back(number);
}

std::vector<SlabObject> KernelObjects::HeldIn(SlabCacheId cache) const {
  std::vector<SlabObject> objects;
  if (std::find(caches_.begin(), caches_.end(), cache) == caches_.end()) return objects;
  for (const Slot& slot : slots_) {
    if (slot.state == State::kHeld && caches_[Index(slot.kind)] == cache) objects.push_back(ObjectOf(slot.where));
  }
  std::sort(objects.begin(), objects.end(), Precedes);
  return objects;
}

bool KernelObjects::Holds(SlabCacheId cache, SlabObject object) const {
  const auto is_it = [&](const Slot& slot) {
    return slot.state == State::kHeld && slot.where == Key(object) && slot.kind != KernelObject::kKernelStack;
  };
  bool of_the_kernel = false;
  for (int i = 0; i < kKernelObjects; ++i) {
    if (caches_[static_cast<size_t>(i)] != cache) continue;
    if (!IsKmalloc(static_cast<KernelObject>(i))) {
      of_the_kernel = true;
      continue;
    }
    // The few of these are listed, so that other people's kfree() does not look at everything.
    const std::vector<uint32_t>& alike = alike_[static_cast<size_t>(i)];
    if (std::any_of(alike.begin(), alike.end(), [&](uint32_t number) { return is_it(slots_[number]); })) return true;
  }
  return of_the_kernel && std::any_of(slots_.begin(), slots_.end(), is_it);
}

uint64_t KernelObjects::HostMemory() const {
  uint64_t bytes =
      sizeof(*this) + slots_.capacity() * sizeof(Slot) + owners_.capacity() * 2 + (free_slots_.capacity() + notes_.capacity()) * 4;
  for (const std::vector<uint32_t>& alike : alike_) bytes += alike.capacity() * 4;
  return bytes;
}

void KernelObjects::AddToHash(StateHasher& hasher) const {
  for (const Slot& slot : slots_) hasher.Add(slot.where << 8 | static_cast<uint64_t>(slot.kind) << 3 | static_cast<uint64_t>(slot.state));
  for (size_t number = 0; number < owners_.size(); ++number) {
    if (owners_[number] != 0) hasher.Add(number << 16 | owners_[number]);
  }
  for (const uint32_t slot : free_slots_) hasher.Add(slot);
  for (const std::vector<uint32_t>& alike : alike_) {
    for (const uint32_t number : alike) hasher.Add(number);
  }
}

void KernelObjects::CheckInvariants(const SlabAllocator* slab, std::vector<std::string>* problems) const {
  std::array<uint64_t, kKernelObjects> held{};
  for (size_t number = 0; number < slots_.size(); ++number) {
    const Slot& slot = slots_[number];
    if (slot.state != State::kHeld) continue;
    ++held[Index(slot.kind)];
    if (slot.kind == KernelObject::kKernelStack) continue;
    const bool allocated =
        slab != nullptr && slab->Locate(slab->AddressOf(ObjectOf(slot.where)), caches_[Index(slot.kind)]).fault == SlabFault::kNone;
    if (!allocated) problems->push_back(absl::StrCat("kernel object ", number, " is no allocated object of its cache"));
  }
  if (held != held_) problems->push_back("counts of kernel objects");
}

}  // namespace mmlab
