#include <gtest/gtest.h>

#include <array>
#include <map>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

constexpr uint64_t kPages = 48;
constexpr uint64_t kAnonEnd = 16;    // Private anonymous pages.
constexpr uint64_t kSharedEnd = 32;  // Shared anonymous pages; behind them a private mapping of the tmpfs file.

// What each process should read at the first byte of each page, by plain arrays.
struct Model {
  std::map<Pid, std::array<uint8_t, kPages>> own;
  std::array<uint8_t, kPages> shared{};
};

uint8_t Fresh(uint64_t page) { return page < kSharedEnd ? 0 : 't'; }

class RandomMemoryTest : public testing::TestWithParam<LayoutKind> {};

// Processes fork, write, drop, move, protect and truncate; every load must read what the model holds, every counter must agree.
TEST_P(RandomMemoryTest, ContentsFollowAModel) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    MemoryLab lab(GetParam(), seed % 2 == 0);
    Model model;
    lab.Map(lab.pid, 0, kAnonEnd, 3, kPrivateAnon);
    lab.Map(lab.pid, kAnonEnd, kSharedEnd - kAnonEnd, 3, kSharedAnon);
    lab.Map(lab.pid, kSharedEnd, kPages - kSharedEnd, 3, 0x2, 10);
    for (uint64_t page = 0; page < kPages; ++page) model.own[lab.pid][page] = Fresh(page);

    for (int step = 0; step < 400; ++step) {
      auto it = model.own.begin();
      std::advance(it, static_cast<ptrdiff_t>(random.Below(model.own.size())));
      const Pid who = it->first;
      const uint64_t page = random.Below(kPages);
      const bool shared = page >= kAnonEnd && page < kSharedEnd;
      uint8_t& expected = shared ? model.shared[page] : it->second[page];
      switch (random.Below(12)) {
        case 0:
          if (model.own.size() < 5) {
            const auto child = lab.processes->Fork(who, 0);
            ASSERT_TRUE(child.ok());
            model.own[child.value()] = it->second;
          }
          break;
        case 1:
          if (model.own.size() > 1) {
            ASSERT_EQ(lab.processes->Exit(who, 0), Errno::kOk);
            model.own.erase(it);
          }
          break;
        case 2:
          ASSERT_EQ(lab.processes->Madvise(who, MemoryLab::At(page), kPage, 4), Errno::kOk);
          if (!shared) expected = Fresh(page);
          break;
        case 3:
          ASSERT_EQ(lab.processes->Madvise(who, MemoryLab::At(page), kPage, page < kAnonEnd ? 20 : 3), Errno::kOk);
          break;
        case 4:
          ASSERT_EQ(lab.processes->Mprotect(who, MemoryLab::At(page), kPage, 1), Errno::kOk);
          ASSERT_EQ(lab.processes->Mprotect(who, MemoryLab::At(page), kPage, 3), Errno::kOk);
          break;
        case 5:
          ASSERT_EQ(lab.processes->Mlock(who, MemoryLab::At(page), kPage, 0), Errno::kOk);
          ASSERT_EQ(lab.processes->Munlock(who, MemoryLab::At(page), kPage), Errno::kOk);
          break;
        case 6: {
          // There and back again.
          ASSERT_TRUE(lab.processes->Mremap(who, MemoryLab::At(page), kPage, kPage, 3, MemoryLab::At(page + 1000)).ok());
          ASSERT_TRUE(lab.processes->Mremap(who, MemoryLab::At(page + 1000), kPage, kPage, 3, MemoryLab::At(page)).ok());
          break;
        }
        case 7:
        case 8:
        case 9: {
          const auto value = static_cast<uint8_t>(random.Below(256));
          lab.Access(who, AccessKind::kStore, page, value);
          ASSERT_FALSE(lab.signal.has_value());
          expected = value;
          break;
        }
        default:
          ASSERT_EQ(lab.Access(who, AccessKind::kLoad, page), expected) << "step " << step << " page " << page;
      }
      ASSERT_EQ(lab.Violations(), std::vector<std::string>()) << "step " << step;
    }
    while (!model.own.empty()) {
      const Pid who = model.own.begin()->first;
      for (uint64_t page = 0; page < kPages; ++page) {
        const bool shared = page >= kAnonEnd && page < kSharedEnd;
        ASSERT_EQ(lab.Access(who, AccessKind::kLoad, page), shared ? model.shared[page] : model.own[who][page]) << "page " << page;
      }
      ASSERT_EQ(lab.processes->Exit(who, 0), Errno::kOk);
      model.own.erase(who);
    }
    ASSERT_EQ(lab.Violations(), std::vector<std::string>());
    EXPECT_EQ(lab.vm_stat.Get(NodeStat::kNrAnonPages), 0);
    EXPECT_EQ(lab.vm_stat.Get(NodeStat::kNrMapped), 0);
    EXPECT_EQ(lab.vm_stat.Get(NodeStat::kNrPageTablePages), 0);
    EXPECT_EQ(lab.processes->committed(), PageCount(20));  // What is left is the tmpfs file.
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, RandomMemoryTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64),
                         [](const auto& c) { return std::string(GetLayout(c.param).name); });

}  // namespace
}  // namespace mmlab
