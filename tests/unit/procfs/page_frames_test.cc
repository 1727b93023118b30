#include "server/procfs/page_frames.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/cgroup/cgroups.h"
#include "server/hardware/page_walk.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/process/address_space.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/procfs/pagemap.h"
#include "server/procfs/procfs.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

// Bits of include/uapi/linux/kernel-page-flags.h and include/linux/kernel-page-flags.h.
enum Kpf : int {
  kUptodate = 3,
  kDirty = 4,
  kLru = 5,
  kSlab = 7,
  kBuddy = 10,
  kMmap = 11,
  kAnon = 12,
  kSwapBacked = 14,
  kHead = 15,
  kTail = 16,
  kUnevictable = 18,
  kNoPage = 20,
  kZeroPage = 24,
  kPgtable = 26,
  kReserved = 32,
  kMlocked = 33,
  kMappedToDisk = 34,
};

class PageFramesTest : public testing::Test {
 protected:
  PageFramesTest() {
    auto booted = Machine::Boot(PresetSpec("arm64-128M"));
    EXPECT_TRUE(booted.ok()) << booted.status();
    machine_ = std::move(booted).value();
    Must(op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true});
    pid_ = Pid(static_cast<int32_t>(Must(op::CreateProcess{"user", 1000, false})));
    op::Exec exec;
    exec.pid = pid_;
    exec.image = SmallProgram(LayoutKind::kArm64);
    Must(exec);
  }
  uint64_t Must(const Operation& operation) {
    const Outcome outcome = machine_->Apply(operation);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome.value;
  }
  uint64_t Flags(uint64_t pfn) const { return KpageFlags(*machine_, Pfn(pfn)); }
  uint64_t Entry(absl::string_view file, uint64_t pfn) const {
    const std::string bytes = ReadFrameFile(*machine_, file, pfn * 8, 8);
    uint64_t entry = 0;
    EXPECT_EQ(bytes.size(), sizeof(entry));
    std::memcpy(&entry, bytes.data(), sizeof(entry));
    return entry;
  }
  static uint64_t Bits(std::initializer_list<int> bits) {
    uint64_t all = 0;
    for (const int bit : bits) all |= uint64_t{1} << bit;
    return all;
  }
  // The frame behind a page of the process that was written to.
  uint64_t Written(uint64_t address) {
    op::AccessMemory touch{.pid = pid_, .access = {}};
    touch.access.kind = AccessKind::kTouchWrite;
    touch.access.address = address;
    touch.access.length = 4096;
    Must(touch);
    return machine_->processes().Walk(*machine_->processes().Find(pid_), VirtAddr(address)).physical->raw() >> 12;
  }

  std::unique_ptr<Machine> machine_;
  Pid pid_;
};

TEST_F(PageFramesTest, AnAnonymousPage) {
  const uint64_t address = Must(op::Mmap{.pid = pid_, .length = 8192, .prot = 3, .flags = 0x22});
  const uint64_t pfn = Written(address);
  // It reaches its LRU list when the CPU's batch is full or emptied.
  EXPECT_EQ(Flags(pfn) & ~Bits({kLru}), Bits({kUptodate, kMmap, kAnon, kSwapBacked, kMappedToDisk}));
  EXPECT_EQ(Entry("kpageflags", pfn), Flags(pfn));
  EXPECT_EQ(Entry("kpagecount", pfn), 1u);
  EXPECT_EQ(Entry("kpagecgroup", pfn), 1u);
  Must(op::Munmap{pid_, address + 4096, 4096});
  Must(op::WriteSysctl{"vm.compact_memory", "1"});
  const uint64_t now = machine_->processes().Walk(*machine_->processes().Find(pid_), VirtAddr(address)).physical->raw() >> 12;
  EXPECT_EQ(Flags(now) & Bits({kLru, kMmap, kAnon}), Bits({kLru, kMmap, kAnon}));
  Must(op::Mlock{pid_, address, 4096, 0});
  EXPECT_EQ(Flags(now) & Bits({kUnevictable, kMlocked}), Bits({kUnevictable, kMlocked}));
  const Pid child(static_cast<int32_t>(Must(op::Fork{pid_, 0})));
  EXPECT_NE(child, pid_);
  EXPECT_EQ(Entry("kpagecount", now), 2u);
  EXPECT_EQ(Flags(now) & Bits({kMappedToDisk}), 0u);  // Not exclusive any more.
}

// struct page as `crash` or a log of the kernel shows it: "flags: 0xbfffc0000000000(node=0|zone=2|lastcpupid=0xffff)".
TEST_F(PageFramesTest, TheWordOfFlagsAsTheKernelLaysItOut) {
  constexpr uint64_t kDmaZone = uint64_t{0xffff} << 42;
  const uint64_t address = Must(op::Mmap{.pid = pid_, .length = 4096, .prot = 3, .flags = 0x22});
  const uint64_t pfn = Written(address);
  constexpr int kUptodateBit = 2, kExclusiveBit = 17, kSwapBackedBit = 19;
  EXPECT_EQ(PageFlagsWord(*machine_, Pfn(pfn)) & ~Bits({4}), kDmaZone | Bits({kUptodateBit, kExclusiveBit, kSwapBackedBit}));
  EXPECT_EQ(PageFlagsWord(*machine_, machine_->memory().zero_frame()), kDmaZone | Bits({12}));
  EXPECT_EQ(PageFlagsWord(*machine_, Pfn(0)), 0u);
  const auto pc = Machine::Boot(PresetSpec("686-1G"));
  ASSERT_TRUE(pc.ok());
  const uint64_t high = (*pc)->memory().zones()[2].start_pfn + 100;
  EXPECT_EQ(PageFlagsWord(**pc, Pfn(high)), uint64_t{2} << 30);
  EXPECT_EQ(PageFlagsWord(**pc, Pfn(0)), 0u);
  EXPECT_EQ(PageFlagsWord(**pc, Pfn(1)) & Bits({12}), Bits({12}));
}

TEST_F(PageFramesTest, PagesNameTheCgroupThatIsCharged) {
  Must(op::WriteCgroupFile{"", "cgroup.subtree_control", "+memory"});
  Must(op::CreateCgroup{"a"});
  Must(op::CreateCgroup{"b"});
  Must(op::WriteCgroupFile{"b", "cgroup.procs", absl::StrCat(pid_.raw())});
  const uint64_t address = Must(op::Mmap{.pid = pid_, .length = 4096, .prot = 3, .flags = 0x22});
  const uint64_t pfn = Written(address);
  const Cgroups& cgroups = machine_->cgroups();
  EXPECT_EQ(Entry("kpagecgroup", pfn), cgroups.cgroup(*cgroups.Find("b")).inode);
  EXPECT_EQ(Entry("kpagecgroup", pfn), 3u);
  // A cgroup that is gone is shown as the one above it.
  Must(op::WriteCgroupFile{"", "cgroup.procs", absl::StrCat(pid_.raw())});
  Must(op::RemoveCgroup{"b"});
  EXPECT_EQ(Entry("kpagecgroup", pfn), 1u);
}

TEST_F(PageFramesTest, PartsOfAHugePage) {
  Must(op::WriteSysfs{"/sys/kernel/mm/transparent_hugepage/enabled", "always"});
  constexpr uint64_t kHuge = 2 << 20;
  const uint64_t area = Must(op::Mmap{.pid = pid_, .length = 2 * kHuge, .prot = 3, .flags = 0x22});
  const uint64_t address = (area + kHuge - 1) & ~(kHuge - 1);
  const uint64_t head = Written(address) & ~uint64_t{511};
  constexpr int kThp = 22;
  EXPECT_EQ(Flags(head) & ~Bits({kLru}), Bits({kUptodate, kMmap, kAnon, kSwapBacked, kMappedToDisk, kHead, kThp}));
  EXPECT_EQ(Flags(head + 77), Bits({kMmap, kAnon, kTail, kThp}));
  EXPECT_EQ(Entry("kpagecount", head), 1u);
  EXPECT_EQ(Entry("kpagecount", head + 511), 1u);
}

TEST_F(PageFramesTest, PagemapTellsWhereEachPageIs) {
  const uint64_t address = Must(op::Mmap{.pid = pid_, .length = 4 * 4096, .prot = 3, .flags = 0x22});
  const uint64_t pfn = Written(address + 4096);
  op::AccessMemory read{.pid = pid_, .access = {}};
  read.access.kind = AccessKind::kTouchRead;
  read.access.address = address + 2 * 4096;
  read.access.length = 4096;
  Must(read);
  const auto entries = [&] {
    const Process& process = *machine_->processes().Find(pid_);
    const std::string bytes = ReadPagemap(*machine_, process, address / 4096 * 8, 4 * 8);
    std::vector<uint64_t> values(bytes.size() / 8);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  };
  const uint64_t zero_page = machine_->memory().zero_frame().raw();
  EXPECT_EQ(entries(), (std::vector<uint64_t>{0, kPagemapPresent | kPagemapExclusive | pfn, kPagemapPresent | zero_page, 0}));
  const Pid child(static_cast<int32_t>(Must(op::Fork{pid_, 0})));
  EXPECT_EQ(entries()[1], kPagemapPresent | pfn) << "mapped twice";
  Must(op::Exit{child, 0});
  Must(op::Mprotect{pid_, address, 4 * 4096, 0});
  EXPECT_EQ(entries()[1], kPagemapPresent | kPagemapExclusive | pfn) << "PROT_NONE: present to the kernel";
  // The pages of the program are of a file.
  const Process& process = *machine_->processes().Find(pid_);
  read.access.address = process.mm->start_code.raw();
  Must(read);
  const std::vector<PagemapPage> all = PagemapPages(*machine_, process, VirtAddr(0), process.mm->task_size, 1000);
  uint64_t files = 0;
  for (const PagemapPage& page : all) files += page.entry >> 61 & 1;
  EXPECT_GT(files, 0u);
  EXPECT_GT(all.size(), files + 2);
  EXPECT_EQ(PagemapPages(*machine_, process, VirtAddr(0), process.mm->task_size, 2).size(), 2u);
  EXPECT_EQ(ReadPagemap(*machine_, process, process.mm->task_size.raw() / 4096 * 8, 8), "");
  EXPECT_EQ(ReadPagemap(*machine_, process, process.mm->task_size.raw() / 4096 * 8 - 8, 64).size(), 8u);
}

TEST_F(PageFramesTest, BlocksOfTheKernel) {
  const uint64_t head = Must(op::AllocPages{op::GfpClass::kKernel, 2, 0});
  EXPECT_EQ(Flags(head), 0u);
  EXPECT_EQ(Flags(head + 1), 0u);
  Must(op::FreePages{head, 2, 0});
  Must(op::DrainPages{0, true});
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(Flags(head + i), Bits({kBuddy}));
  EXPECT_EQ(Entry("kpagecount", head), 0u);
  EXPECT_EQ(Entry("kpagecgroup", head), 0u);
}

TEST_F(PageFramesTest, EveryFrameIsOfAKnownKind) {
  const uint64_t end = machine_->memory().end_pfn().raw();
  std::map<std::string, uint64_t> seen;
  uint64_t free = 0;
  for (const Zone& zone : machine_->memory().zones()) free += zone.free_pages_exact();
  for (uint64_t pfn = 0; pfn < end; ++pfn) {
    const uint64_t flags = Flags(pfn);
    seen["buddy"] += flags >> kBuddy & 1;
    seen["reserved"] += flags >> kReserved & 1;
    seen["zero"] += flags >> kZeroPage & 1;
    seen["pgtable"] += flags >> kPgtable & 1;
    seen["nopage"] += flags >> kNoPage & 1;
    EXPECT_EQ((flags & Bits({kBuddy})) != 0 && (flags & Bits({kReserved, kMmap, kSlab, kHead, kTail})) != 0, false) << pfn;
  }
  EXPECT_EQ(seen["buddy"], free);
  EXPECT_EQ(seen["zero"], 1u);
  EXPECT_GT(seen["reserved"], 1000u);
  EXPECT_EQ(seen["nopage"], machine_->memory().zones()[0].start_pfn);
  // The kernel calls those of pte_t and pmd_t so.
  EXPECT_EQ(seen["pgtable"], static_cast<uint64_t>(machine_->vm_stat().Get(NodeStat::kNrPageTablePages)));
}

TEST_F(PageFramesTest, FilesAreReadPartByPart) {
  const uint64_t end = machine_->memory().end_pfn().raw();
  EXPECT_EQ(ReadFrameFile(*machine_, "kpageflags", 0, kMaxFrameFileBytes).size(), kMaxFrameFileBytes);
  EXPECT_EQ(ReadFrameFile(*machine_, "kpageflags", (end - 3) * 8, kMaxFrameFileBytes).size(), 24u);
  EXPECT_EQ(ReadFrameFile(*machine_, "kpageflags", end * 8, 8).size(), 0u);
  EXPECT_EQ(ReadProcFile(*machine_, "kpagecount")->size(), kMaxFrameFileBytes);
  EXPECT_FALSE(IsFrameFile("kpage"));
}

}  // namespace
}  // namespace mmlab
