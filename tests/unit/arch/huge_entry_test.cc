#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "server/arch/layout.h"
#include "server/arch/page_table_format.h"

namespace mmlab {
namespace {

constexpr uint64_t kReadWrite = 3;  // VM_READ | VM_WRITE
constexpr Pfn kFrame(0x12000);      // On a multiple of 1024 and 512.

struct EntryCase {
  LayoutKind layout;
  uint64_t bytes;       // That the entry maps.
  uint64_t entry;       // pmd_mkdirty(pmd_mkwrite(mk_huge_pmd(page, PAGE_COPY)))
  uint64_t protected_;  // pmd_modify(entry, PAGE_NONE)
};

class HugeEntryTest : public testing::TestWithParam<EntryCase> {
 protected:
  PageTableFormat format_{GetLayout(GetParam().layout)};
};

TEST_P(HugeEntryTest, LooksAsTheProcessorWantsIt) {
  const uint64_t entry = format_.MkHuge(format_.MkWrite(format_.MkDirty(format_.Make(kFrame, format_.Protection(kReadWrite)))));
  EXPECT_EQ(entry, GetParam().entry);
  EXPECT_EQ(format_.coverage(2), GetParam().bytes);
  EXPECT_TRUE(format_.Huge(entry));
  EXPECT_FALSE(format_.TablePresent(entry));
  EXPECT_TRUE(format_.Writable(entry) && format_.Dirty(entry) && format_.Young(entry));
  EXPECT_EQ(format_.HugePfn(entry), kFrame);
  EXPECT_EQ(format_.Check(entry, true, false, true).verdict, PteVerdict::kAllowed);
}

TEST_P(HugeEntryTest, KeepsItsFrameWithoutPermissions) {
  const uint64_t none = format_.ModifyHuge(GetParam().entry, format_.Protection(0));
  EXPECT_EQ(none, GetParam().protected_);
  EXPECT_TRUE(format_.Huge(none));
  EXPECT_FALSE(format_.TablePresent(none));
  EXPECT_EQ(format_.HugePfn(none), kFrame);
  EXPECT_EQ(format_.Check(none, false, false, true).verdict, PteVerdict::kNotPresent);
  EXPECT_EQ(format_.MkWrite(format_.ModifyHuge(none, format_.Protection(kReadWrite))), GetParam().entry);
}

TEST_P(HugeEntryTest, IsNoTable) {
  const uint64_t table = format_.TableEntry(kFrame, 2);
  EXPECT_FALSE(format_.Huge(table));
  EXPECT_TRUE(format_.TablePresent(table));
  EXPECT_FALSE(format_.Huge(0));
  EXPECT_EQ(format_.Decode(table, 2), "table");
  EXPECT_EQ(format_.Decode(GetParam().entry, 2).substr(0, 6), "block ");
}

// x86: present 1, rw 2, user 4, accessed 0x20, dirty 0x40, PSE 0x80, PROT_NONE 0x100; PAE keeps the frame of a PROT_NONE entry inverted.
// ARM64: a block has type 1; attributes as a page has them.
INSTANTIATE_TEST_SUITE_P(Layouts, HugeEntryTest,
                         testing::Values(EntryCase{LayoutKind::kX86_32, uint64_t{4} << 20, 0x120000e7, 0x120001e0},
                                         EntryCase{LayoutKind::kX86_32Pae, uint64_t{2} << 20, 0x120000e7, 0x0000000fede001e0},
                                         EntryCase{LayoutKind::kArm64, uint64_t{2} << 20, 0x00e8000012000f41, 0x04e0000012000f80}),
                         [](const auto& c) { return std::string(GetLayout(c.param.layout).name); });

}  // namespace
}  // namespace mmlab
