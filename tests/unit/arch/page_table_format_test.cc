#include "server/arch/page_table_format.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/base/random.h"

namespace mmlab {
namespace {

constexpr uint64_t kRead = 1, kWrite = 2, kExec = 4, kShared = 8;

PageTableFormat FormatOf(LayoutKind kind) { return PageTableFormat(GetLayout(kind)); }

struct GeometryCase {
  const char* name;
  LayoutKind layout;
  uint64_t address;
  int entry_bytes;
  std::vector<uint32_t> indexes;  // From the top level down to the pte.
  std::vector<uint64_t> coverage;
};
class GeometryTest : public testing::TestWithParam<GeometryCase> {};

TEST_P(GeometryTest, IndexesEachLevel) {
  const PageTableFormat format = FormatOf(GetParam().layout);
  std::vector<uint32_t> indexes;
  std::vector<uint64_t> coverage;
  for (int level = format.levels(); level >= 1; --level) {
    indexes.push_back(format.IndexOf(VirtAddr(GetParam().address), level));
    coverage.push_back(format.coverage(level));
  }
  EXPECT_EQ(indexes, GetParam().indexes);
  EXPECT_EQ(coverage, GetParam().coverage);
  EXPECT_EQ(format.entry_bytes(), GetParam().entry_bytes);
}
INSTANTIATE_TEST_SUITE_P(
    Layouts, GeometryTest,
    testing::Values(
        GeometryCase{"X86TwoLevels", LayoutKind::kX86_32, 0xb7ff9123, 4, {0x2df, 0x3f9}, {4 << 20, 4096}},
        GeometryCase{"X86Pae", LayoutKind::kX86_32Pae, 0xb7ff9123, 8, {2, 0x1bf, 0x1f9}, {1 << 30, 2 << 20, 4096}},
        GeometryCase{"Arm64", LayoutKind::kArm64, 0xfffff7ff5123, 8, {511, 511, 447, 0x1f5}, {uint64_t{1} << 39, 1 << 30, 2 << 20, 4096}}),
    [](const auto& c) { return c.param.name; });

struct ProtectionCase {
  const char* name;
  LayoutKind layout;
  uint64_t vm_flags;
  const char* decoded;
};
class ProtectionTest : public testing::TestWithParam<ProtectionCase> {};

TEST_P(ProtectionTest, DecodesTo) {
  const PageTableFormat format = FormatOf(GetParam().layout);
  EXPECT_EQ(format.Decode(format.Make(Pfn(0x1234), format.Protection(GetParam().vm_flags)), 1), GetParam().decoded);
}
INSTANTIATE_TEST_SUITE_P(
    VmFlags, ProtectionTest,
    testing::Values(ProtectionCase{"X86None", LayoutKind::kX86_32, 0, "prot_none accessed"},
                    ProtectionCase{"X86PrivateWriteIsCopyOnWrite", LayoutKind::kX86_32, kRead | kWrite, "present user accessed"},
                    ProtectionCase{"X86SharedWrite", LayoutKind::kX86_32, kRead | kWrite | kShared, "present user writable accessed"},
                    ProtectionCase{"PaeLosesNoExecute", LayoutKind::kX86_32Pae, kRead, "present user accessed"},
                    ProtectionCase{"ArmNone", LayoutKind::kArm64, 0, "prot_none read_only accessed no_execute"},
                    ProtectionCase{"ArmReadOnly", LayoutKind::kArm64, kRead, "present user read_only accessed no_execute"},
                    ProtectionCase{"ArmText", LayoutKind::kArm64, kRead | kExec, "present user read_only accessed"},
                    ProtectionCase{"ArmSharedWriteIsClean", LayoutKind::kArm64, kRead | kWrite | kShared,
                                   "present user writable read_only accessed no_execute"}),
    [](const auto& c) { return c.param.name; });

struct CheckCase {
  const char* name;
  LayoutKind layout;
  uint64_t vm_flags;
  bool old;
  bool write;
  bool execute;
  bool hardware_flags;
  PteVerdict verdict;
  bool dirty_after;
};
class ProcessorTest : public testing::TestWithParam<CheckCase> {};

TEST_P(ProcessorTest, Judges) {
  const CheckCase& c = GetParam();
  const PageTableFormat format = FormatOf(c.layout);
  Pte pte = format.Make(Pfn(7), format.Protection(c.vm_flags));
  if (c.old) pte = format.MkOld(pte);
  const PageTableFormat::Checked checked = format.Check(pte, c.write, c.execute, c.hardware_flags);
  EXPECT_EQ(checked.verdict, c.verdict);
  EXPECT_EQ(format.Dirty(checked.pte), c.dirty_after);
  if (c.verdict == PteVerdict::kAllowed) {
    EXPECT_TRUE(format.Young(checked.pte));
  } else {
    EXPECT_EQ(checked.pte, pte);
  }
}
constexpr auto kX86 = LayoutKind::kX86_32;
constexpr auto kPae = LayoutKind::kX86_32Pae;
constexpr auto kArm = LayoutKind::kArm64;
INSTANTIATE_TEST_SUITE_P(
    Accesses, ProcessorTest,
    testing::Values(
        CheckCase{"X86ReadOld", kX86, kRead, true, false, false, true, PteVerdict::kAllowed, false},
        CheckCase{"X86WriteReadOnly", kX86, kRead, false, true, false, true, PteVerdict::kPermission, false},
        CheckCase{"X86WriteSharedSetsDirty", kX86, kRead | kWrite | kShared, false, true, false, true, PteVerdict::kAllowed, true},
        CheckCase{"X86ProtNone", kX86, 0, false, false, false, true, PteVerdict::kNotPresent, false},
        CheckCase{"PaeExecutesReadable", kPae, kRead, false, false, true, true, PteVerdict::kAllowed, false},
        CheckCase{"ArmExecutesNotReadable", kArm, kRead, false, false, true, true, PteVerdict::kPermission, false},
        CheckCase{"ArmExecutesText", kArm, kRead | kExec, false, false, true, true, PteVerdict::kAllowed, false},
        CheckCase{"ArmOldWithHardwareFlag", kArm, kRead, true, false, false, true, PteVerdict::kAllowed, false},
        CheckCase{"ArmOldWithoutHardwareFlag", kArm, kRead, true, false, false, false, PteVerdict::kAccessFlag, false},
        CheckCase{"ArmWriteCleanWithHardwareDirty", kArm, kRead | kWrite | kShared, false, true, false, true, PteVerdict::kAllowed, true},
        CheckCase{"ArmWriteCleanWithout", kArm, kRead | kWrite | kShared, false, true, false, false, PteVerdict::kPermission, false}),
    [](const auto& c) { return c.param.name; });

class AllLayoutsTest : public testing::TestWithParam<LayoutKind> {};

TEST_P(AllLayoutsTest, EntriesKeepTheirFrameThroughAnyChange) {
  const PageTableFormat format = FormatOf(GetParam());
  const uint64_t frames = GetLayout(GetParam()).max_phys_addr >> 12;
  Random random(1);
  for (int round = 0; round < 10000; ++round) {
    const Pfn pfn(random.Below(frames));
    Pte pte = format.Make(pfn, format.Protection(random.Below(16)));
    std::string history;
    for (int change = 0; change < 6; ++change) {
      const uint64_t which = random.Below(7);
      history += static_cast<char>('0' + which);
      const bool dirty = format.Dirty(pte);
      switch (which) {
        case 0:
          pte = format.MkDirty(pte);
          break;
        case 1:
          pte = format.MkClean(pte);
          EXPECT_FALSE(format.Dirty(pte)) << history;
          break;
        case 2:
          pte = format.WrProtect(pte);
          EXPECT_FALSE(format.Writable(pte)) << history;
          EXPECT_EQ(format.Dirty(pte), dirty) << history;
          break;
        case 3:
          pte = format.MkWrite(pte);
          break;
        case 4:
          pte = format.MkOld(pte);
          break;
        case 5:
          pte = format.MkYoung(pte);
          break;
        default:
          pte = format.Modify(pte, format.Protection(random.Below(16)));
          EXPECT_EQ(format.Dirty(pte), dirty) << history;
      }
      ASSERT_EQ(format.PfnOf(pte), pfn) << history;
      ASSERT_FALSE(format.None(pte)) << history;
      ASSERT_TRUE(format.Present(pte)) << history;
    }
  }
}

TEST_P(AllLayoutsTest, TablesPointAtTables) {
  const PageTableFormat format = FormatOf(GetParam());
  for (int level = 2; level <= format.levels(); ++level) {
    const uint64_t entry = format.TableEntry(Pfn(0x54321), level);
    EXPECT_TRUE(format.TablePresent(entry));
    EXPECT_EQ(format.TableOf(entry), Pfn(0x54321));
  }
  EXPECT_FALSE(format.TablePresent(0));
}

TEST_P(AllLayoutsTest, EntriesOfSwappedPagesNameTheirSlot) {
  const PageTableFormat format = FormatOf(GetParam());
  for (const uint32_t area : {0u, 1u, 16u, 28u}) {
    for (const uint32_t slot : {1u, 2u, 255u, 0x12345u, (1u << 23) - 1}) {
      const Pte pte = format.MakeSwap(area, slot);
      EXPECT_TRUE(format.IsSwap(pte));
      EXPECT_FALSE(format.Present(pte) || format.None(pte) || format.Valid(pte));
      EXPECT_EQ(format.SwapArea(pte), area);
      EXPECT_EQ(format.SwapSlot(pte), slot);
      const Pte exclusive = format.MkSwapExclusive(pte);
      EXPECT_EQ(format.SwapExclusive(exclusive), GetParam() == kArm);
      EXPECT_EQ(format.SwapSlot(exclusive), slot);
      EXPECT_EQ(format.ClearSwapExclusive(exclusive), pte);
    }
  }
}

struct SwapEntryCase {
  const char* name;
  LayoutKind layout;
  Pte entry;  // Of area 1, slot 0x1234.
};
class SwapEntryTest : public testing::TestWithParam<SwapEntryCase> {};

TEST_P(SwapEntryTest, HasTheLayoutsBits) { EXPECT_EQ(FormatOf(GetParam().layout).MakeSwap(1, 0x1234), GetParam().entry); }

INSTANTIATE_TEST_SUITE_P(AllLayouts, SwapEntryTest,
                         testing::Values(SwapEntryCase{"TwoLevels", kX86, 0x246802}, SwapEntryCase{"Pae", kPae, 0x0fff'ffff'ffdb'9600},
                                         SwapEntryCase{"Arm64", kArm, 0x123408}),
                         [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(Layouts, AllLayoutsTest, testing::Values(kX86, kPae, kArm),
                         [](const auto& c) { return std::string(GetLayout(c.param).name); });

}  // namespace
}  // namespace mmlab
