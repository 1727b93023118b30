#include "server/arch/entry_fields.h"

#include <gtest/gtest.h>

#include <string>

#include "server/arch/page_table_format.h"

namespace mmlab {
namespace {

struct EntryCase {
  const char* name;
  LayoutKind layout;
  int level;
  uint64_t entry;
  const char* kind;
  const char* text;
  uint64_t target;
};
class EntryFieldsTest : public testing::TestWithParam<EntryCase> {};

TEST_P(EntryFieldsTest, SaysWhatTheBitsMean) {
  const EntryCase& c = GetParam();
  const EntryDescription entry = DescribeEntry(GetLayout(c.layout), c.entry, c.level);
  EXPECT_EQ(EntryKindName(entry.kind), c.kind);
  EXPECT_EQ(entry.Text(), c.text);
  EXPECT_EQ(entry.target.has_value() ? entry.target->raw() : 0, c.target);
  // No bit belongs to two fields, and each field shows the bits that it names.
  uint64_t seen = 0;
  for (const EntryField& field : entry.fields) {
    const uint64_t mask = (field.width == 64 ? ~uint64_t{0} : (uint64_t{1} << field.width) - 1) << field.bit;
    EXPECT_EQ(seen & mask, 0u) << field.name;
    EXPECT_EQ(field.value, (c.entry & mask) >> field.bit) << field.name;
    EXPECT_FALSE(field.value != 0 && field.meaning.empty()) << field.name;
    seen |= mask;
  }
}

constexpr LayoutKind kX86 = LayoutKind::kX86_32;
constexpr LayoutKind kPae = LayoutKind::kX86_32Pae;
constexpr LayoutKind kArm = LayoutKind::kArm64;
constexpr uint64_t kNx = uint64_t{1} << 63;

INSTANTIATE_TEST_SUITE_P(X86, EntryFieldsTest,
                         testing::Values(EntryCase{"None", kX86, 1, 0, "none", "none", 0},
                                         EntryCase{"UserPage", kX86, 1, 0x00777067, "page", "P RW US A D", 0x777000},
                                         EntryCase{"ReadOnly", kX86, 1, 0x00777025, "page", "P US A", 0x777000},
                                         EntryCase{"Device", kX86, 1, 0xfebf017b, "page", "P RW PWT PCD A D G", 0xfebf0000},
                                         EntryCase{"Special", kX86, 1, 0x00777225, "page", "P US A SPECIAL", 0x777000},
                                         EntryCase{"ProtNone", kX86, 1, 0x00777120, "prot_none", "PROTNONE", 0x777000},
                                         EntryCase{"Swap", kX86, 1, 0x00000402, "not present", "not present", 0},
                                         EntryCase{"Table", kX86, 2, 0x00123067, "table", "P RW US A", 0x123000},
                                         EntryCase{"HugeProtNone", kX86, 2, 0x00400120, "prot_none", "PROTNONE", 0x400000},
                                         EntryCase{"LargePage", kX86, 2, 0x004001e3, "block", "P RW A D PS G", 0x400000},
                                         EntryCase{"PaeUserPage", kPae, 1, 0x900777067, "page", "P RW US A D", 0x900777000},
                                         EntryCase{"PaeNoExecute", kPae, 1, kNx | 0x900777163, "page", "P RW A D G XD", 0x900777000},
                                         EntryCase{"PaeLargePage", kPae, 2, kNx | 0x2000001e3, "block", "P RW A D PS G XD", 0x200000000},
                                         EntryCase{"PaePointer", kPae, 3, 0x123001, "table", "P", 0x123000}),
                         [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Arm64, EntryFieldsTest,
    testing::Values(EntryCase{"None", kArm, 1, 0, "none", "none", 0},
                    EntryCase{"UserReadOnly", kArm, 1, 0x0020000040777fc3, "page", "valid type AP=3 SH=3 AF nG PXN", 0x40777000},
                    EntryCase{"UserWritable", kArm, 1, 0x00e8000040777f43, "page", "valid type AP=1 SH=3 AF nG DBM PXN UXN DIRTY",
                              0x40777000},
                    EntryCase{"Device", kArm, 1, 0x0068000009000713, "page", "valid type AttrIndx=4 SH=3 AF DBM PXN UXN", 0x9000000},
                    EntryCase{"Contiguous", kArm, 1, 0x0078000040000703, "page", "valid type SH=3 AF DBM contiguous PXN UXN", 0x40000000},
                    EntryCase{"ProtNone", kArm, 1, 0x0460000040777f80, "prot_none", "AP=2 SH=3 AF nG PXN UXN PROT_NONE", 0x40777000},
                    EntryCase{"Swap", kArm, 1, 0x100, "not present", "not present", 0},
                    EntryCase{"Block", kArm, 2, 0x0068000040200701, "block", "valid SH=3 AF DBM PXN UXN", 0x40200000},
                    EntryCase{"HugeProtNone", kArm, 2, 0x0460000040200f80, "prot_none", "AP=2 SH=3 AF nG PXN UXN PROT_NONE", 0x40200000},
                    EntryCase{"BlockOfAGigabyte", kArm, 3, 0x0068000080000701, "block", "valid SH=3 AF DBM PXN UXN", 0x80000000},
                    EntryCase{"UserTable", kArm, 4, 0x0800000041234003, "table", "valid type PXNTable", 0x41234000},
                    EntryCase{"KernelTable", kArm, 3, 0x1000000041234003, "table", "valid type UXNTable", 0x41234000}),
    [](const auto& c) { return c.param.name; });

// What the format makes is described as what was meant, PAE's inverted frame numbers included.
TEST(EntryFieldsTest, DescribesWhatTheFormatMakes) {
  for (const LayoutKind kind : {kX86, kPae, kArm}) {
    const Layout& layout = GetLayout(kind);
    const PageTableFormat format(layout);
    for (uint64_t vm_flags = 0; vm_flags < 16; ++vm_flags) {
      const EntryDescription entry = DescribeEntry(layout, format.Make(Pfn(0x4321), format.Protection(vm_flags)), 1);
      EXPECT_EQ(entry.kind, (vm_flags & 7) == 0 ? EntryKind::kProtNone : EntryKind::kPage);
      EXPECT_EQ(entry.target, PhysAddr(0x4321000));
    }
  }
}

}  // namespace
}  // namespace mmlab
