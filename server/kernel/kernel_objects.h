#ifndef MMLAB_SERVER_KERNEL_KERNEL_OBJECTS_H_
#define MMLAB_SERVER_KERNEL_KERNEL_OBJECTS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/address.h"
#include "server/base/hash.h"
#include "server/kernel/slab_allocator.h"

namespace mmlab {

class MemoryController;

// Nodes of the maple tree of an address space with so many VMAs, of which so many lie behind a hole. While all VMAs, holes and the hole up
// to the top fit into one leaf (maple_leaf_64: 16 slots, 32 where words have 4 bytes), the tree is that leaf. Beyond, an estimate: which
// nodes there are depends on how the tree grew; here they are three quarters full, leaves as those above (maple_arange_64: 10 slots, or
// 21).
uint64_t MapleNodes(uint64_t vmas, uint64_t holes, int word_bytes);

// What processes and files cost the kernel beside page tables.
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
  kMapleNode,
  kFilp,
  kDentry,
  kInode,       // Of pipes; those of disks come from a cache of their file system, which is not simulated.
  kShmemInode,  // tmpfs, memfd, SysV shm, shared anonymous memory.
  kHugetlbInode,
  kBdevInode,
  kFileSecurity,   // What AppArmor keeps with each struct file,
  kTaskSecurity,   // the security modules with each task,
  kCredSecurity,   // and with each struct cred.
  kPipeInfo,       // struct pipe_inode_info,
  kPipeBuffers,    // and its ring of 16 struct pipe_buffer.
  kXarrayNode,     // Of page caches.
  kVmapArea,       // A range of the kernel's address space, in use, freed lazily or free,
  kVmStruct,       // and what /proc/vmallocinfo says of one in use.
  kKmemCache,      // A cache that was made since boot,
  kKmemCacheNode,  // and its lists of the node.
};
inline constexpr int kKernelObjects = 29;

// Where the objects come from; the machine has it.
class KernelObjectSource {
 public:
  virtual ~KernelObjectSource() = default;
  virtual SlabAllocator& Slab() = 0;
  // A kernel stack, by an address that FreeStack takes back. Nothing: no memory.
  virtual std::optional<VirtAddr> AllocStack() = 0;
  virtual void FreeStack(VirtAddr stack) = 0;
  // Who is charged for objects; null: nobody.
  virtual MemoryController* Charger() const = 0;
};

// The objects that the simulated kernel allocates for the processes and files of a machine. Whoever makes or ends a thing notes it here,
// which costs a few instructions and cannot fail or disturb anything; Settle() then does what was noted, in that order, when nobody is in
// the middle of something: allocating may free memory, and even kill a process. A real kernel allocates at once; that it finds no memory
// happens there only to who is being killed.
//
// Always true between operations: each object that is held is an allocated object of its cache. Not thread-safe: the machine's lane.
class KernelObjects {
 public:
  // `source` outlives this.
  explicit KernelObjects(KernelObjectSource& source) : source_(source) {}
  KernelObjects(const KernelObjects&) = delete;
  KernelObjects& operator=(const KernelObjects&) = delete;

  // Notes that an object is taken; the number by which Drop() gives it back, never 0.
  uint32_t Take(KernelObject kind);
  void Drop(uint32_t number);
  // The same for objects that are not told apart: the one taken last is given back first.
  void TakeOne(KernelObject kind) { alike_[Index(kind)].push_back(Take(kind)); }
  void DropOne(KernelObject kind);
  // Takes or gives back as many of these as it needs to have `count` of them.
  void SetCount(KernelObject kind, uint64_t count) {
    while (alike_[Index(kind)].size() < count) TakeOne(kind);
    while (alike_[Index(kind)].size() > count) DropOne(kind);
  }

  bool pending() const { return !notes_.empty(); }
  // Allocates and frees what was noted. False: there was no memory for some of it, which stays without.
  bool Settle();

  uint64_t held(KernelObject kind) const { return held_[Index(kind)]; }
  // Whether the kernel itself holds an object of that cache, so that nobody else may free it; and all that it holds there, sorted by
  // Precedes(). Looks at everything that is held if the cache is one of the kernel's.
  bool Holds(SlabCacheId cache, SlabObject object) const;
  std::vector<SlabObject> HeldIn(SlabCacheId cache) const;
  static bool Precedes(SlabObject a, SlabObject b) { return Key(a) < Key(b); }

  uint64_t HostMemory() const;
  void AddToHash(StateHasher& hasher) const;
  // `slab`: null when none was made yet.
  void CheckInvariants(const SlabAllocator* slab, std::vector<std::string>* problems) const;

 private:
  enum class State : uint8_t { kFree = 0, kNoted, kHeld, kFailed };
  struct Slot {
    uint64_t where : 56 = 0;  // Key of the slab object, or the address of the stack without its eight highest bits.
    State state : 3 = State::kFree;
    KernelObject kind : 5 = KernelObject::kTaskStruct;
  };
  static_assert(sizeof(Slot) == 8);
  static constexpr size_t Index(KernelObject kind) { return static_cast<size_t>(kind); }
  // A slab has at most 32767 objects, and there are at most 2^24 slabs.
  static uint64_t Key(SlabObject object) { return uint64_t{object.slab} << 16 | object.index; }
  static SlabObject ObjectOf(uint64_t key) { return {static_cast<uint32_t>(key >> 16), static_cast<uint32_t>(key & 0xffff)}; }
  static VirtAddr StackOf(uint64_t where) { return VirtAddr((where >> 47) != 0 ? where | uint64_t{0xff} << 56 : where); }
  // What an object of a kind costs the memory cgroup that it is made for.
  struct Cost {
    uint32_t bytes = 0;  // 0: nothing.
    bool reclaimable = false;
  };
  // Nothing: this allocator has no cache for it (SLOB), and the object is not accounted.
  std::optional<SlabCacheId> CacheOf(SlabAllocator& slab, KernelObject kind);
  Cost CostOf(const SlabAllocator& slab, SlabCacheId cache, KernelObject kind) const;
  uint16_t OwnerOf(uint32_t number) const { return number < owners_.size() ? owners_[number] : uint16_t{0}; }
  std::optional<SlabObject> AllocObject(uint32_t number, KernelObject kind, SlabCacheId cache);
  bool Acquire(uint32_t number);
  void Release(uint32_t number);

  KernelObjectSource& source_;
  std::vector<Slot> slots_ = std::vector<Slot>(1);  // By number.
  std::vector<uint16_t> owners_;                    // By number as far as anybody is charged: the memory cgroup that is; 0: none.
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> notes_;  // number x 2, + 1 where it is given back.
  std::array<std::vector<uint32_t>, kKernelObjects> alike_;
  std::array<uint64_t, kKernelObjects> held_{};
  std::array<std::optional<SlabCacheId>, kKernelObjects> caches_;
  std::array<bool, kKernelObjects> looked_up_{};  // Whether caches_ says what CacheOf() answers.
  std::array<Cost, kKernelObjects> costs_;        // Of those that were looked up.
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
