#include "server/kernel/kernel_objects.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/kernel/slot_table.h"
#include "server/physical/memory_controller.h"

namespace mmlab {
namespace {

// The cache of each kind; where it was merged into another, that one is looked for too.
struct CacheNames {
  const char* name;
  const char* merged_x86 = nullptr;
  const char* merged_arm64 = nullptr;
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
    {"radix_tree_node"},
};

}  // namespace

uint64_t MapleNodes(uint64_t vmas) {
  constexpr uint64_t kOneNode = 16;
  if (vmas == 0) return 0;
  const uint64_t entries = 2 * vmas + 1;
  if (entries <= kOneNode) return 1;
  uint64_t nodes = 0;
  for (uint64_t level = (entries + 11) / 12; level > 1; level = (level + 7) / 8) nodes += level;
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

SlabCacheId KernelObjects::CacheOf(SlabAllocator& slab, KernelObject kind) {
  std::optional<SlabCacheId>& cache = caches_[Index(kind)];
  if (!cache.has_value()) {
    const CacheNames& names = kCacheNames[Index(kind)];
    cache = slab.Find(names.name);
    if (!cache.has_value()) cache = slab.Find(slab.platform().word == 4 ? names.merged_x86 : names.merged_arm64);
    MMLAB_CHECK(cache.has_value());
    // With SLOB there is no accounting of objects (CONFIG_MEMCG_KMEM). The nodes of page caches are asked for with __GFP_ACCOUNT.
    const SlabGeometry geometry = slab.View(*cache).geometry;
    const bool accounted = slab.kind() != SlabAllocatorKind::kSlob;
    if (accounted && ((geometry.flags & kSlabAccount) != 0 || kind == KernelObject::kRadixTreeNode)) {
      const auto pointer = static_cast<uint32_t>(slab.platform().word);
      costs_[Index(kind)] = {static_cast<uint32_t>(geometry.size) + pointer, (geometry.flags & kSlabReclaimAccount) != 0};
    }
  }
  return *cache;
}

// memcg_slab_pre_alloc_hook() and what follows.
std::optional<SlabObject> KernelObjects::AllocObject(uint32_t number, KernelObject kind) {
  SlabAllocator& slab = source_.Slab();
  const SlabCacheId cache = CacheOf(slab, kind);
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
    if (const std::optional<SlabObject> object = AllocObject(number, kind)) where = Key(*object);
  }
  Slot& slot = slots_[number];
  slot.state = where.has_value() ? State::kHeld : State::kFailed;
  slot.where = where.value_or(0) & (~uint64_t{0} >> 8);
  if (where.has_value()) ++held_[Index(kind)];
  return where.has_value();
}

void KernelObjects::Release(uint32_t number) {
  const Slot slot = slots_[number];
  MMLAB_CHECK(slot.state == State::kHeld || slot.state == State::kFailed);
  if (slot.state == State::kHeld) {
    --held_[Index(slot.kind)];
    if (slot.kind == KernelObject::kKernelStack) {
      source_.FreeStack(StackOf(slot.where));
    } else {
      SlabAllocator& slab = source_.Slab();
      slab.TellFree(CacheOf(slab, slot.kind), ObjectOf(slot.where));
      slab.FreeObject(CacheOf(slab, slot.kind), ObjectOf(slot.where));
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
  if (std::find(caches_.begin(), caches_.end(), cache) == caches_.end()) return false;
  return std::any_of(slots_.begin(), slots_.end(), [&](const Slot& slot) {
    return slot.state == State::kHeld && slot.where == Key(object) && slot.kind != KernelObject::kKernelStack;
  });
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
