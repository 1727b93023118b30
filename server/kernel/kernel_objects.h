#ifndef MMLAB_SERVER_KERNEL_KERNEL_OBJECTS_H_
#define MMLAB_SERVER_KERNEL_KERNEL_OBJECTS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/base/address.h"
#include "server/base/hash.h"
#include "server/kernel/slab_allocator.h"

namespace mmlab {

// What processes cost the kernel beside page tables.
enum class KernelObject : uint8_t {
  kTaskStruct = 0,
  kKernelStack,  // Pages, no slab object.
  kCred,
  kFilesStruct,
  kFsStruct,
  kSighand,
  kSignal,
  kPid,
  kMm,
  kVma,
  kAnonVma,
  kAnonVmaChain,
  kFilp,
};
inline constexpr int kKernelObjects = 13;

// Where the objects come from; the machine has it.
class KernelObjectSource {
 public:
  virtual ~KernelObjectSource() = default;
  virtual SlabAllocator& Slab() = 0;
  // A kernel stack, by an address that FreeStack takes back. Nothing: no memory.
  virtual std::optional<VirtAddr> AllocStack() = 0;
  virtual void FreeStack(VirtAddr stack) = 0;
};

// The objects that the simulated kernel allocates for the processes of a machine. Whoever makes or ends a thing notes it here, which costs
// a few instructions and cannot fail or disturb anything; Settle() then does what was noted, in that order, when nobody is in the middle of
// something: allocating may free memory, and even kill a process. A real kernel allocates at once; that it finds no memory happens there
// only to who is being killed.
//
// Always true between operations: each object that is held is an allocated object of its cache. Not thread-safe: the machine's lane.
class KernelObjects {
 public:
  // `source` outlives this.
  explicit KernelObjects(KernelObjectSource& source) : source_(source) {}
  KernelObjects(const KernelObjects&) = delete;
  KernelObjects& operator=(const KernelObjects&) = delete;

  // Notes that an object is taken; the number by which Drop() gives it back.
  uint32_t Take(KernelObject kind);
  void Drop(uint32_t number);
  // The same for objects that are not told apart: the one taken last is given back first.
  void TakeOne(KernelObject kind) { alike_[Index(kind)].push_back(Take(kind)); }
  void DropOne(KernelObject kind);

  bool pending() const { return !notes_.empty(); }
  // Allocates and frees what was noted. False: there was no memory for some of it, which stays without.
  bool Settle();

  uint64_t held(KernelObject kind) const { return held_[Index(kind)]; }
  // Whether the kernel itself holds an object, so that nobody else may free it.
  bool Holds(SlabObject object) const { return objects_.contains(Key(object)); }

  uint64_t HostMemory() const;
  void AddToHash(StateHasher& hasher) const;
  // `slab`: null when none was made yet.
  void CheckInvariants(const SlabAllocator* slab, std::vector<std::string>* problems) const;

 private:
  enum class State : uint8_t { kFree = 0, kNoted, kHeld, kFailed };
  struct Slot {
    State state = State::kFree;
    KernelObject kind = KernelObject::kTaskStruct;
    uint64_t where = 0;  // Key of the slab object, or address of the stack.
  };
  static constexpr size_t Index(KernelObject kind) { return static_cast<size_t>(kind); }
  static uint64_t Key(SlabObject object) { return uint64_t{object.slab} << 32 | object.index; }
  static SlabObject ObjectOf(uint64_t key) { return {static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(key)}; }
  SlabCacheId CacheOf(SlabAllocator& slab, KernelObject kind);
  bool Acquire(uint32_t number);
  void Release(uint32_t number);

  KernelObjectSource& source_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> notes_;  // number x 2, + 1 where it is given back.
  std::array<std::vector<uint32_t>, kKernelObjects> alike_;
  std::array<uint64_t, kKernelObjects> held_{};
  std::array<std::optional<SlabCacheId>, kKernelObjects> caches_;
  absl::flat_hash_set<uint64_t> objects_;  // Keys of what is held; only looked up.
};

// Somebody's hold on one object; who copies it holds another of the same kind.
class KernelObjectRef {
 public:
  KernelObjectRef() = default;
  KernelObjectRef(KernelObjects* objects, KernelObject kind)  // Null: objects are not accounted.
      : objects_(objects), number_(objects == nullptr ? 0 : objects->Take(kind)), kind_(kind) {}
  KernelObjectRef(const KernelObjectRef& other) : KernelObjectRef(other.objects_, other.kind_) {}
  KernelObjectRef(KernelObjectRef&& other) noexcept
      : objects_(std::exchange(other.objects_, nullptr)), number_(other.number_), kind_(other.kind_) {}
  KernelObjectRef& operator=(KernelObjectRef other) noexcept {
    std::swap(objects_, other.objects_);
    std::swap(number_, other.number_);
    std::swap(kind_, other.kind_);
    return *this;
  }
  ~KernelObjectRef() {
    if (objects_ != nullptr) objects_->Drop(number_);
  }
  explicit operator bool() const { return objects_ != nullptr; }

 private:
  KernelObjects* objects_ = nullptr;
  uint32_t number_ = 0;
  KernelObject kind_ = KernelObject::kTaskStruct;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_KERNEL_OBJECTS_H_
