#include "server/kernel/kernel_objects.h"

#include "absl/strings/str_cat.h"
#include "server/base/check.h"

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
    {"filp"},
};

}  // namespace

uint32_t KernelObjects::Take(KernelObject kind) {
  auto number = static_cast<uint32_t>(slots_.size());
  if (free_slots_.empty()) {
    slots_.emplace_back();
  } else {
    number = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[number] = {State::kNoted, kind, 0};
  notes_.push_back(number * 2);
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
  for (size_t i = 0; i < notes_.size(); ++i) {  // Allocating may end a process, which adds notes.
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
  }
  return *cache;
}

bool KernelObjects::Acquire(uint32_t number) {
  const KernelObject kind = slots_[number].kind;
  std::optional<uint64_t> where;
  if (kind == KernelObject::kKernelStack) {
    if (const std::optional<VirtAddr> stack = source_.AllocStack()) where = stack->raw();
  } else {
    SlabAllocator& slab = source_.Slab();
    if (const std::optional<SlabObject> object = slab.AllocObject(CacheOf(slab, kind), kGfpKernel)) {
      where = Key(*object);
      objects_.insert(*where);
    }
  }
  slots_[number].state = where.has_value() ? State::kHeld : State::kFailed;
  slots_[number].where = where.value_or(0);
  if (where.has_value()) ++held_[Index(kind)];
  return where.has_value();
}

void KernelObjects::Release(uint32_t number) {
  Slot& slot = slots_[number];
  MMLAB_CHECK(slot.state == State::kHeld || slot.state == State::kFailed);
  if (slot.state == State::kHeld) {
    --held_[Index(slot.kind)];
    if (slot.kind == KernelObject::kKernelStack) {
      source_.FreeStack(VirtAddr(slot.where));
    } else {
      SlabAllocator& slab = source_.Slab();
      objects_.erase(slot.where);
      slab.FreeObject(CacheOf(slab, slot.kind), ObjectOf(slot.where));
    }
  }
  slot = Slot();
  free_slots_.push_back(number);
}

uint64_t KernelObjects::HostMemory() const {
  uint64_t bytes = sizeof(*this) + slots_.capacity() * sizeof(Slot) + (free_slots_.capacity() + notes_.capacity()) * 4;
  for (const std::vector<uint32_t>& alike : alike_) bytes += alike.capacity() * 4;
  return bytes + objects_.capacity() * (sizeof(uint64_t) + 1);
}

void KernelObjects::AddToHash(StateHasher& hasher) const {
  for (const Slot& slot : slots_) hasher.Add(slot.where << 8 | static_cast<uint64_t>(slot.kind) << 4 | static_cast<uint64_t>(slot.state));
  for (const uint32_t slot : free_slots_) hasher.Add(slot);
  for (const std::vector<uint32_t>& alike : alike_) {
    for (const uint32_t number : alike) hasher.Add(number);
  }
}

void KernelObjects::CheckInvariants(const SlabAllocator* slab, std::vector<std::string>* problems) const {
  std::array<uint64_t, kKernelObjects> held{};
  uint64_t objects = 0;
  for (size_t number = 0; number < slots_.size(); ++number) {
    const Slot& slot = slots_[number];
    if (slot.state != State::kHeld) continue;
    ++held[Index(slot.kind)];
    if (slot.kind == KernelObject::kKernelStack) continue;
    ++objects;
    const bool allocated = slab != nullptr && objects_.contains(slot.where) &&
                           slab->Locate(slab->AddressOf(ObjectOf(slot.where)), caches_[Index(slot.kind)]).fault == SlabFault::kNone;
    if (!allocated) problems->push_back(absl::StrCat("kernel object ", number, " is no allocated object of its cache"));
  }
  if (held != held_ || objects != objects_.size()) problems->push_back("counts of kernel objects");
}

}  // namespace mmlab
