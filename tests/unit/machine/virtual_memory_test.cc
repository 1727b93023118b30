// Translation of virtual addresses and the bytes of physical memory of a whole machine.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>

#include "server/arch/kernel_layout.h"
#include "server/kernel/kernel_page_tables.h"
#include "server/machine/machine.h"
#include "server/machine/physical_access.h"
#include "server/machine/virtual_translation.h"
#include "server/physical/page_allocator.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr ProcessorAccess kUserRead{false, false, true};
constexpr ProcessorAccess kUserWrite{true, false, true};
constexpr ProcessorAccess kKernelRead{false, false, false};

class VirtualMemoryTest : public testing::TestWithParam<const char*> {
 protected:
  VirtualMemoryTest() : machine_(std::move(Machine::Boot(PresetSpec(GetParam())).value())) {
    Apply(op::CreateFile{"/program", op::FileSystem::kExt4, kPage, "program", true});
    pid_ = Pid(static_cast<int32_t>(Apply(op::CreateProcess{"lab", 1000, false}).value));
    ElfImage image;
    image.path = "/program";
    image.entry = 0x8048000;
    image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x8048000, kPage, kPage, 5, kPage}};
    Apply(op::Exec{pid_, image, {}, {"lab"}, {}});
    mapped_ = Apply(op::Mmap{pid_, 0, 4 * kPage, 3, 0x22, -1, 0}).value;
    AccessRequest write;
    write.kind = AccessKind::kWriteBytes;
    write.address = mapped_ + kPage - 2;
    write.data = "abcdef";  // The end of one page and the start of the next.
    Apply(op::AccessMemory{pid_, write});
  }

  Outcome Apply(const Operation& operation) {
    Outcome outcome = machine_->Apply(operation);
    EXPECT_EQ(outcome.error, Errno::kOk) << OperationName(operation);
    return outcome;
  }
  VirtualTranslation Translate(uint64_t address, const ProcessorAccess& access, bool with_process = true) {
    return TranslateVirtual(*machine_, with_process ? machine_->processes().Find(pid_) : nullptr, VirtAddr(address), access);
  }
  bool x86() const { return machine_->layout().is_x86(); }

  std::unique_ptr<Machine> machine_;
  Pid pid_;
  uint64_t mapped_ = 0;
};

TEST_P(VirtualMemoryTest, UserAddressesGoThroughTheProcessesTables) {
  const VirtualTranslation there = Translate(mapped_ + 5, kUserWrite);
  EXPECT_EQ(there.region, "user");
  EXPECT_EQ(there.base_register, x86() ? "CR3" : "TTBR0_EL1");
  EXPECT_EQ(there.base.raw(), Apply(op::SwitchTo{pid_, 0}).value);
  ASSERT_TRUE(there.physical.has_value());
  EXPECT_EQ(there.physical->raw() % kPage, 5u);
  EXPECT_EQ(there.page_bytes, Bytes(kPage));
  EXPECT_FALSE(there.fault.has_value());
  // The switch gave an ASID.
  EXPECT_EQ(Translate(mapped_, kUserRead).asid, x86() ? 0u : 1u);
  const VirtualTranslation untouched = Translate(mapped_ + 3 * kPage, kUserRead);
  EXPECT_FALSE(untouched.physical.has_value());
  ASSERT_TRUE(untouched.fault.has_value());
  EXPECT_EQ(untouched.fault->level, 1);
  EXPECT_EQ(untouched.fault->kind, TranslationFault::Kind::kTranslation);
  EXPECT_FALSE(Translate(mapped_, kUserRead, false).physical.has_value()) << "no process, no user addresses";
}

TEST_P(VirtualMemoryTest, TranslationChangesNothing) {
  const uint64_t before = machine_->StateHash();
  for (const uint64_t address : {uint64_t{0}, mapped_, machine_->kernel_layout().page_offset.raw(),
                                 machine_->kernel_layout().vmalloc_start.raw(), machine_->kernel_layout().fixaddr_top.raw() - kPage}) {
    Translate(address, kUserWrite);
  }
  EXPECT_EQ(machine_->StateHash(), before);
}

TEST_P(VirtualMemoryTest, TheKernelsAddressesGoByTheirRegion) {
  const KernelLayout& layout = machine_->kernel_layout();
  const VirtualTranslation linear = Translate(layout.page_offset.raw() + 0x100123, kKernelRead, false);
  EXPECT_EQ(linear.physical, layout.memstart_addr + Bytes(0x100123));
  EXPECT_FALSE(linear.fault.has_value());
  ASSERT_TRUE(Translate(layout.page_offset.raw(), kUserRead).fault.has_value());
  EXPECT_EQ(Translate(layout.page_offset.raw(), kUserRead).fault->kind, TranslationFault::Kind::kPermission);

  // By real levels, and with what boot left in the entries.
  EXPECT_EQ(linear.base_register, x86() ? "CR3" : "TTBR1_EL1");
  ASSERT_GT(linear.walk.count, 0);
  EXPECT_TRUE(Translate(layout.high_memory.raw() - kPage, kKernelRead, false).physical.has_value());
  EXPECT_FALSE(Translate(layout.high_memory.raw(), kKernelRead, false).physical.has_value());
  const uint64_t text = x86() ? layout.page_offset.raw() + 0x1000000 : layout.kimage_voffset + 0x40210000;
  EXPECT_FALSE(Translate(text, ProcessorAccess{false, true, false}, false).fault.has_value());
  ASSERT_TRUE(Translate(text, ProcessorAccess{true, false, false}, false).fault.has_value()) << "text is read only";
  EXPECT_EQ(Translate(text, ProcessorAccess{true, false, false}, false).fault->kind, TranslationFault::Kind::kPermission);
  // The same entries are in physical memory.
  const WalkStep& last = linear.walk.steps[static_cast<size_t>(linear.walk.count) - 1];
  const auto width = static_cast<uint64_t>(PageTableFormat(machine_->layout()).entry_bytes());
  std::string entry;
  std::string reason;
  EXPECT_EQ(PhysicalAccess(*machine_).Read(PhysAddr(last.table.raw() * kPage + last.index * width), width, &entry, &reason), width);
  uint64_t value = 0;
  std::memcpy(&value, entry.data(), entry.size());
  EXPECT_EQ(value, last.entry);

  EXPECT_FALSE(Translate(layout.vmalloc_end.raw() - kPage, kKernelRead).physical.has_value());
  op::Vmalloc vmalloc;
  vmalloc.size = 3 * kPage;
  const uint64_t area = Apply(vmalloc).value;
  const VirtualTranslation page = Translate(area + kPage + 7, kKernelRead);
  EXPECT_EQ(page.region, "vmalloc");
  EXPECT_EQ(page.base_register, x86() ? "CR3" : "TTBR1_EL1");
  EXPECT_EQ(page.walk.count, PageTableFormat(machine_->layout()).levels());
  ASSERT_TRUE(page.physical.has_value());
  EXPECT_EQ(page.physical->raw() % kPage, 7u);
  EXPECT_FALSE(page.fault.has_value());
  EXPECT_TRUE(Translate(area, kUserRead).fault.has_value());
  EXPECT_EQ(page.walk.steps[0].table, linear.walk.steps[0].table) << "one swapper_pg_dir for all of it";
  EXPECT_EQ(Translate(layout.page_offset.raw() + 0x100123, kKernelRead, false).physical, linear.physical);
  EXPECT_FALSE(Translate(area + 3 * kPage, kKernelRead).physical.has_value()) << "the guard page";
}

TEST_P(VirtualMemoryTest, ReadingFollowsTheTranslation) {
  const Process* process = machine_->processes().Find(pid_);
  std::string data;
  std::string reason;
  EXPECT_EQ(ReadVirtual(*machine_, process, VirtAddr(mapped_ + kPage - 2), 6, &data, &reason), 6u);
  EXPECT_EQ(data, "abcdef");
  EXPECT_EQ(reason, "");
  data.clear();
  EXPECT_EQ(ReadVirtual(*machine_, process, VirtAddr(mapped_ + kPage), 2 * kPage, &data, &reason), kPage);
  EXPECT_NE(reason, "") << "the third page was never touched";
  // The same bytes by their physical address, and by the linear map where it reaches them.
  const PhysAddr physical = *Translate(mapped_ + kPage, kUserRead).physical;
  data.clear();
  reason.clear();
  EXPECT_EQ(PhysicalAccess(*machine_).Read(physical, 4, &data, &reason), 4u);
  EXPECT_EQ(data, "cdef");
  data.clear();
  ReadVirtual(*machine_, nullptr, VirtAddr(mapped_), 1, &data, &reason);
  EXPECT_NE(reason, "");
}

TEST_P(VirtualMemoryTest, WhatIsWrittenPhysicallyIsReadByTheProcess) {
  const PhysAddr physical = *Translate(mapped_ + kPage, kUserRead).physical;
  EXPECT_EQ(Apply(op::WritePhysicalMemory{physical.raw() + 1, "XY"}).value, 2u);
  AccessRequest read;
  read.kind = AccessKind::kReadBytes;
  read.address = mapped_ + kPage;
  read.length = 4;
  EXPECT_EQ(Apply(op::AccessMemory{pid_, read}).data, "cXYf");
  EXPECT_EQ(machine_->CheckInvariants(), std::vector<std::string>());
}

TEST_P(VirtualMemoryTest, WritesAreAllOrNothing) {
  const uint64_t pgd = Translate(mapped_, kUserRead).base.raw();
  const uint64_t physical = Translate(mapped_, kUserRead).physical->raw() & ~(kPage - 1);
  const uint64_t end = machine_->memory().end_pfn().raw() * kPage;
  struct Case {
    uint64_t address;
    uint64_t size;
    Errno error;
  };
  for (const Case& c : {Case{pgd, 1, Errno::kEPERM}, Case{~uint64_t{0}, 1, Errno::kEFAULT}, Case{~uint64_t{0} - 1, 4, Errno::kEFAULT},
                        Case{end, 8, Errno::kEFAULT}, Case{uint64_t{1} << 52, 8, Errno::kEFAULT}}) {
    const Outcome outcome = machine_->Apply(op::WritePhysicalMemory{c.address, std::string(c.size, 'x')});
    EXPECT_EQ(outcome.error, c.error) << std::hex << c.address;
  }
  // A mebibyte from a page of the process on: somewhere in it lies what must not be written.
  EXPECT_NE(machine_->Apply(op::WritePhysicalMemory{physical, std::string(1 << 20, 'x')}).error, Errno::kOk);
  EXPECT_EQ(machine_->CheckInvariants(), std::vector<std::string>());
  std::string data;
  std::string reason;
  PhysicalAccess(*machine_).Read(PhysAddr(physical), 1, &data, &reason);
  EXPECT_NE(data, "x");
}

TEST_P(VirtualMemoryTest, EveryAddressIsAnswered) {
  const uint64_t top = x86() ? 0xffffffff : ~uint64_t{0};
  for (int bit = 0; bit < (x86() ? 32 : 64); ++bit) {
    for (const int64_t delta : {-1, 0, 1}) {
      const uint64_t address = (uint64_t{1} << bit) + static_cast<uint64_t>(delta);
      if (address > top) continue;
      for (const bool with_process : {false, true}) Translate(address, kUserWrite, with_process);
      std::string data;
      std::string reason;
      ReadVirtual(*machine_, nullptr, VirtAddr(address), 16, &data, &reason);
      PhysicalAccess(*machine_).Read(PhysAddr(address), 16, &data, &reason);
      static_cast<void>(machine_->Apply(op::WritePhysicalMemory{address, "0123456789abcdef"}));
    }
  }
  for (const uint64_t address : {top, top - 4095}) {
    std::string data;
    std::string reason;
    ReadVirtual(*machine_, nullptr, VirtAddr(address), 1 << 20, &data, &reason);
    EXPECT_NE(reason, "");
  }
  EXPECT_EQ(machine_->CheckInvariants(), std::vector<std::string>());
}

INSTANTIATE_TEST_SUITE_P(Presets, VirtualMemoryTest, testing::Values("686-1G", "686-pae-4G", "arm64-1G"),
                         [](const auto& c) { return CaseName(c.param); });

}  // namespace
}  // namespace mmlab
