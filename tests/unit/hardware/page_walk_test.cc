#include "server/hardware/page_walk.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

namespace mmlab {
namespace {

// Physical memory of which only page tables exist.
class Tables {
 public:
  explicit Tables(LayoutKind layout) : format(GetLayout(layout)) {}

  // Makes the tables on the way to an address and the entry there.
  void Map(VirtAddr address, Pte pte) {
    Pfn table = root;
    for (int level = format.levels(); level > 1; --level) {
      const uint32_t index = format.IndexOf(address, level);
      uint64_t entry = format.Load(Bytes(table), index);
      if (!format.TablePresent(entry)) {
        entry = format.TableEntry(Pfn(next_++), level);
        format.Store(Bytes(table), index, entry);
      }
      table = format.TableOf(entry);
    }
    format.Store(Bytes(table), format.IndexOf(address, 1), pte);
  }
  PageWalk Walk(VirtAddr address) {
    return WalkPageTables(
        format, [this](Pfn frame, size_t offset, void* out, size_t size) { std::memcpy(out, Bytes(frame) + offset, size); }, root, address);
  }

  const PageTableFormat format;
  const Pfn root{100};

 private:
  uint8_t* Bytes(Pfn pfn) {
    std::vector<uint8_t>& bytes = frames_[pfn];
    bytes.resize(4096);
    return bytes.data();
  }
  std::map<Pfn, std::vector<uint8_t>> frames_;
  uint64_t next_ = 101;
};

struct WalkCase {
  const char* name;
  LayoutKind layout;
  uint64_t mapped;
  uint64_t walked;
  int steps;
  uint64_t physical;  // 0: the walk leads nowhere.
};
class PageWalkTest : public testing::TestWithParam<WalkCase> {};

TEST_P(PageWalkTest, Reaches) {
  Tables tables(GetParam().layout);
  tables.Map(VirtAddr(GetParam().mapped), tables.format.Make(Pfn(0x777), tables.format.Protection(1)));
  const PageWalk walk = tables.Walk(VirtAddr(GetParam().walked));
  EXPECT_EQ(walk.count, GetParam().steps);
  EXPECT_EQ(walk.physical.has_value() ? walk.physical->raw() : 0, GetParam().physical);
  EXPECT_EQ(walk.steps[0].table, tables.root);
}
INSTANTIATE_TEST_SUITE_P(Layouts, PageWalkTest,
                         testing::Values(WalkCase{"X86", LayoutKind::kX86_32, 0x40000000, 0x40000123, 2, 0x777123},
                                         WalkCase{"X86NextPage", LayoutKind::kX86_32, 0x40000000, 0x40001000, 2, 0},
                                         WalkCase{"X86NoTable", LayoutKind::kX86_32, 0x40000000, 0x40400000, 1, 0},
                                         WalkCase{"Pae", LayoutKind::kX86_32Pae, 0xbffff000, 0xbfffffff, 3, 0x777fff},
                                         WalkCase{"PaeNoPmd", LayoutKind::kX86_32Pae, 0xbffff000, 0x1000, 1, 0},
                                         WalkCase{"Arm64", LayoutKind::kArm64, 0xfffffffff000, 0xfffffffff008, 4, 0x777008},
                                         WalkCase{"Arm64NoPte", LayoutKind::kArm64, 0xfffffffff000, 0xffffffe00000, 4, 0},
                                         WalkCase{"Arm64NoPmd", LayoutKind::kArm64, 0xfffffffff000, 0xffffff000000, 3, 0},
                                         WalkCase{"Arm64NoPud", LayoutKind::kArm64, 0xfffffffff000, 0x400000, 1, 0}),
                         [](const auto& c) { return c.param.name; });

TEST(PageWalkTest, ProtNoneIsNoWay) {
  Tables tables(LayoutKind::kX86_32Pae);
  tables.Map(VirtAddr(0x40000000), tables.format.Make(Pfn(0x777), tables.format.Protection(0)));
  EXPECT_FALSE(tables.Walk(VirtAddr(0x40000000)).physical.has_value());
}

TEST(PageWalkTest, ExplainsEachLevel) {
  Tables tables(LayoutKind::kArm64);
  tables.Map(VirtAddr(0x400000), tables.format.Make(Pfn(0x777), tables.format.Protection(1)));
  Explanation why;
  ExplainWalk(tables.format, tables.Walk(VirtAddr(0x400000)), why);
  ASSERT_EQ(why.steps().size(), 4u);
  EXPECT_EQ(FactText(why.steps()[0].facts[0]), "level=pgd");
  EXPECT_EQ(FactText(why.steps()[0].facts[1]), "table=pfn 0x64");
  EXPECT_EQ(FactText(why.steps()[2].facts[2]), "index=2");
  EXPECT_EQ(FactText(why.steps()[3].facts[4]), "decoded=present user read_only accessed no_execute");
}

}  // namespace
}  // namespace mmlab
