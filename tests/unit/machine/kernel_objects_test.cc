// What processes cost the kernel: slab objects and stacks come and go with them.

#include "server/kernel/kernel_objects.h"

#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/kernel/slab_allocator.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"
#include "tests/unit/machine/random_program.h"
#include "tests/unit/machine/slab_machine.h"

namespace mmlab {
namespace {

using testing::IsEmpty;

class KernelObjectsTest : public SlabMachineTest {
 protected:
  uint64_t Must(const Operation& operation) {
    const Outcome outcome = machine_->Apply(operation);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome.value;
  }
  Pid Start() {
    Must(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    const Pid pid(static_cast<int32_t>(Must(op::CreateProcess{"shell", 1000, false})));
    Must(op::Exec{pid, SmallProgram(machine_->layout().kind), std::nullopt, {"shell"}, {}});
    return pid;
  }
  uint64_t Held(KernelObject kind) const { return machine_->kernel_objects().held(kind); }
  int64_t StackKib() const { return machine_->vm_stat().Get(NodeStat::kNrKernelStack); }
  std::map<std::string, uint64_t> Allocated() const {
    std::map<std::string, uint64_t> allocated;
    machine_->ReadSlab([&](const SlabAllocator& slab) {
      for (const SlabCacheId id : slab.Caches()) allocated[slab.View(id).name] = slab.View(id).allocated;
    });
    return allocated;
  }
  // An address of an object of the cache that somebody holds.
  uint64_t AnObjectOf(const char* cache) const {
    uint64_t address = 0;
    machine_->ReadSlab([&](const SlabAllocator& slab) {
      const SlabCacheId id = *slab.Find(cache);
      for (const SlabPageView& page : slab.Slabs(id)) {
        for (uint64_t offset = 0; offset < 4096u << page.order; offset += 2) {
          const VirtAddr at = slab.AddressOfPage(page.pfn) + Bytes(offset);
          if (address == 0 && slab.Locate(at, id).fault == SlabFault::kNone) address = at.raw();
        }
      }
    });
    return address;
  }
};

TEST_P(KernelObjectsTest, AForkCostsWhatAProcessIsMadeOf) {
  const Pid shell = Start();
  const uint64_t vmas = Held(KernelObject::kVma);
  EXPECT_EQ(vmas, machine_->processes().vma_count());
  const std::map<std::string, uint64_t> before = Allocated();
  const int64_t stacks = StackKib();
  const Pid child(static_cast<int32_t>(Must(op::Fork{shell, 0})));
  std::map<std::string, uint64_t> after = Allocated();
  for (const char* one : {"task_struct", "mm_struct", "files_cache", "sighand_cache", "signal_cache", "cred_jar"}) {
    EXPECT_EQ(after[one], before.at(one) + 1) << one;
  }
  EXPECT_EQ(after["vm_area_struct"], before.at("vm_area_struct") + vmas);
  EXPECT_EQ(after["maple_node"], before.at("maple_node") + 1);  // A small program's VMAs fit into one leaf.
  EXPECT_GT(after["anon_vma"], before.at("anon_vma"));
  EXPECT_EQ(StackKib() - stacks, machine_->layout().is_x86() ? 8 : 16);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
  Must(op::Exit{child, 0});
  after = Allocated();
  // On ARM64 the CPU keeps the stack, whose area stays with what describes it.
  for (const char* kept : {"vmap_area", "kmalloc-128"}) {
    if (!machine_->layout().is_x86() && before.contains(kept)) after[kept] = before.at(kept);
  }
  EXPECT_EQ(after, before);
  EXPECT_EQ(StackKib(), stacks);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(KernelObjectsTest, AThreadSharesMostOfIt) {
  const Pid shell = Start();
  const uint64_t vmas = Held(KernelObject::kVma);
  Must(op::Fork{shell, 0x100 | 0x200 | 0x400 | 0x800 | 0x10000});  // CLONE_VM, FS, FILES, SIGHAND, THREAD
  for (const KernelObject own : {KernelObject::kTaskStruct, KernelObject::kKernelStack, KernelObject::kPid}) EXPECT_EQ(Held(own), 2u);
  for (const KernelObject shared : {KernelObject::kMm, KernelObject::kCred, KernelObject::kFilesStruct, KernelObject::kFsStruct,
                                    KernelObject::kSighand, KernelObject::kSignal}) {
    EXPECT_EQ(Held(shared), 1u);
  }
  EXPECT_EQ(Held(KernelObject::kVma), vmas);
}

TEST_P(KernelObjectsTest, MappingsAreObjectsToo) {
  const Pid shell = Start();
  const uint64_t vmas = Held(KernelObject::kVma);
  op::Mmap mmap{shell, 0, 16384, 3, 0x22, -1, 0};
  const uint64_t start = Must(mmap);
  EXPECT_EQ(Held(KernelObject::kVma), machine_->processes().vma_count());
  Must(op::Mprotect{shell, start + 4096, 4096, 1});  // Splits it in three.
  EXPECT_EQ(Held(KernelObject::kVma), machine_->processes().vma_count());
  EXPECT_GE(Held(KernelObject::kVma), vmas + 2);
  Must(op::Munmap{shell, start, 16384});
  EXPECT_EQ(Held(KernelObject::kVma), vmas);
  const uint64_t files = Held(KernelObject::kFilp);
  const uint64_t fd = Must(op::MemfdCreate{shell, "memory", 0});
  EXPECT_EQ(Held(KernelObject::kFilp), files + 1);
  Must(op::Close{shell, static_cast<int32_t>(fd)});
  EXPECT_EQ(Held(KernelObject::kFilp), files);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(KernelObjectsTest, NobodyElseFreesThem) {
  const Pid shell = Start();
  op::KmemCacheFree free;
  free.cache = "task_struct";
  free.address = AnObjectOf("task_struct");
  ASSERT_NE(free.address, 0u);
  const std::map<std::string, uint64_t> before = Allocated();
  EXPECT_EQ(machine_->Apply(free).error, Errno::kEBUSY);
  op::KmemCacheFreeBulk bulk;
  bulk.cache = free.cache;
  bulk.addresses = {free.address};
  EXPECT_EQ(machine_->Apply(bulk).error, Errno::kEBUSY);
  op::Kfree kfree;
  kfree.address = free.address;
  EXPECT_EQ(machine_->Apply(kfree).error, Errno::kEBUSY);
  op::Krealloc krealloc;
  krealloc.address = free.address;
  krealloc.size = 1 << 20;
  EXPECT_NE(machine_->Apply(krealloc).error, Errno::kOk);
  EXPECT_EQ(Allocated(), before);
  Must(op::Exit{shell, 0});
  EXPECT_EQ(Held(KernelObject::kTaskStruct), 0u);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(KernelObjectsTest, AnIdleMachineHasNone) {
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
  const VmStat& stat = machine_->vm_stat();
  EXPECT_EQ(stat.Get(NodeStat::kNrSlabReclaimable) + stat.Get(NodeStat::kNrSlabUnreclaimable),
            static_cast<int64_t>(machine_->memory().boot_slab_pages()));
  EXPECT_EQ(StackKib(), 0);
}

// One descriptor stands for both ends.
TEST_P(KernelObjectsTest, APipeIsAFileAnInodeAndItsBuffers) {
  const Pid shell = Start();
  const std::map<std::string, uint64_t> before = Allocated();
  const Outcome ends = machine_->Apply(op::Pipe{shell});
  ASSERT_EQ(ends.error, Errno::kOk);
  std::map<std::string, uint64_t> after = Allocated();
  EXPECT_EQ(after["filp"], before.at("filp") + 1);
  EXPECT_EQ(after["lsm_file_cache"], before.at("lsm_file_cache") + 1);
  EXPECT_EQ(after["inode_cache"], before.at("inode_cache") + 1);
  EXPECT_EQ(after["dentry"], before.at("dentry") + 1);
  if (std::get<1>(GetParam()) == SlabAllocatorKind::kSlub) {
    const bool x86 = machine_->layout().is_x86();
    for (const char* one : {x86 ? "kmalloc-cg-128" : "kmalloc-cg-256", x86 ? "kmalloc-cg-512" : "kmalloc-cg-1k"}) {
      EXPECT_EQ(after[one], before.at(one) + 1) << one;
    }
  }
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(KernelObjectsTest, PageCachesHaveTreesOfNodes) {
  Must(op::CreateFile{"/data", op::FileSystem::kExt4, 4096 * 4096, "", true});
  EXPECT_EQ(Held(KernelObject::kXarrayNode), 65u);  // 64 leaves of 64 pages, and their root.
  Must(op::CreateFile{"/small", op::FileSystem::kExt4, 4096, "", true});
  EXPECT_EQ(Held(KernelObject::kXarrayNode), 65u);  // A page at index 0 alone needs none.
  EXPECT_EQ(Allocated().at("radix_tree_node"), 65u);
  Must(op::Unlink{"/data"});
  EXPECT_EQ(Held(KernelObject::kXarrayNode), 0u);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(KernelObjectsTest, AreasOfTheKernelsAddressesAreObjects) {
  constexpr uint64_t kAreas = 40;
  op::Vmalloc vmalloc;
  vmalloc.size = 1 << 16;
  std::vector<uint64_t> addresses;
  for (uint64_t i = 0; i < kAreas; ++i) addresses.push_back(Must(vmalloc));
  const bool slob = std::get<1>(GetParam()) == SlabAllocatorKind::kSlob;
  EXPECT_EQ(Held(KernelObject::kVmStruct), slob ? 0 : kAreas);  // SLOB's kmalloc() has no cache.
  EXPECT_GT(Held(KernelObject::kVmapArea), kAreas / 2);         // Some fill a hole that boot left.
  for (const uint64_t address : addresses) Must(op::Vfree{address});
  EXPECT_EQ(Held(KernelObject::kVmStruct), 0u);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

TEST_P(KernelObjectsTest, ACacheIsAnObjectToo) {
  op::KmemCacheCreate create;
  create.cache = "mine";
  create.object_size = 300;
  create.constructor = true;
  Must(create);
  const uint64_t caches = std::get<1>(GetParam()) == SlabAllocatorKind::kSlob ? 0 : 1;  // SLOB has no cache of caches.
  EXPECT_EQ(Held(KernelObject::kKmemCache), caches);
  EXPECT_EQ(Held(KernelObject::kKmemCacheNode), caches);
  Must(op::KmemCacheDestroy{"mine"});
  EXPECT_EQ(Held(KernelObject::kKmemCache), 0u);
  EXPECT_EQ(Held(KernelObject::kKmemCacheNode), 0u);
  EXPECT_THAT(machine_->CheckInvariants(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(AllKernels, KernelObjectsTest,
                         testing::Combine(testing::Values("686-1G-smp4", "686-pae-1G", "arm64-1G"),
                                          testing::Values(SlabAllocatorKind::kSlub, SlabAllocatorKind::kSlab, SlabAllocatorKind::kSlob)),
                         SlabMachineName);

}  // namespace
}  // namespace mmlab
