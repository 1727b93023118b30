#include "server/cgroup/cgroups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/base/explanation.h"
#include "server/base/random.h"
#include "server/cgroup/cgroup_pressure.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kPage = 4096;

// Memory of 4096 pages with a hierarchy in which every cgroup has a memory controller.
class CgroupsTest : public testing::Test, public CgroupPressure {
 protected:
  void SetUp() override {
    memory_ = MakeTestMemory(4096, tracer_);
    cgroups_ = std::make_unique<Cgroups>(*memory_, 8, now_, tracer_);
    memory_->SetController(cgroups_.get());
    cgroups_->SetPressure(this);
    Write("", "cgroup.subtree_control", "+memory");
  }

  // Frees the oldest pages, wherever they are charged below `memcg`.
  uint64_t ReclaimCgroup(uint16_t memcg, uint64_t pages) override {
    ++reclaims_;
    uint64_t freed = 0;
    for (size_t i = 0; i < pages_.size() && freed < pages && reclaimable_;) {
      if (!cgroups_->IsWithin(memory_->frame(pages_[i]).memcg, memcg)) {
        ++i;
        continue;
      }
      memory_->FreePages(pages_[i], PageOrder(0));
      pages_.erase(pages_.begin() + static_cast<ptrdiff_t>(i));
      ++freed;
    }
    return freed;
  }
  bool CgroupOutOfMemory(uint16_t memcg, Gfp, int) override {
    oom_of_.push_back(memcg);
    dies_ = true;
    return true;
  }
  bool ActingProcessDies() const override { return dies_; }
  void DrainLru() override {}

  uint32_t Make(const std::string& path) {
    const SysResult<uint64_t> made = cgroups_->Make(path);
    EXPECT_TRUE(made.ok()) << path << ": " << ErrnoName(made.error());
    return made.ok() ? static_cast<uint32_t>(made.value()) : 0;
  }
  void Write(const std::string& path, const std::string& file, const std::string& value, Errno error = Errno::kOk) {
    EXPECT_EQ(cgroups_->Write(*cgroups_->Find(path), file, value, false).error, error) << path << "/" << file << " = " << value;
  }
  std::string Read(const std::string& path, const std::string& file) const {
    return cgroups_->Read(*cgroups_->Find(path), file).value_or("none");
  }
  // How many of `count` pages a process of the cgroup gets.
  uint64_t Take(uint32_t cgroup, uint64_t count) {
    cgroups_->SetCurrent(cgroup);
    for (uint64_t i = 0; i < count; ++i) {
      const std::optional<Pfn> pfn = memory_->AllocCharged(kGfpHighuserMovable);
      if (!pfn.has_value()) return i;
      pages_.push_back(*pfn);
    }
    return count;
  }
  std::vector<std::string> Violations() const {
    std::vector<std::string> problems;
    cgroups_->CheckInvariants(&problems);
    memory_->CheckInvariants(&problems);
    return problems;
  }
  static std::string Bytes(uint64_t pages) { return std::to_string(pages * kPage) + "\n"; }

  Tracer tracer_;
  int64_t now_ = 0;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<Cgroups> cgroups_;
  std::vector<Pfn> pages_;
  std::vector<uint16_t> oom_of_;
  bool reclaimable_ = true;
  bool dies_ = false;
  int reclaims_ = 0;
};

TEST_F(CgroupsTest, ChargingCostsOneTestWhileThereIsOnlyTheRoot) {
  EXPECT_EQ(memory_->charger(), nullptr);
  Make("a");
  EXPECT_NE(memory_->charger(), nullptr);
  EXPECT_EQ(cgroups_->Remove("a"), Errno::kOk);
  EXPECT_EQ(memory_->charger(), nullptr);
}

TEST_F(CgroupsTest, ChargesMoveInStepsOfTheStock) {
  const uint32_t a = Make("a");
  Take(a, 1);
  EXPECT_EQ(Read("a", "memory.current"), Bytes(64));
  Take(a, 63);
  EXPECT_EQ(Read("a", "memory.current"), Bytes(64));
  Take(a, 1);
  EXPECT_EQ(Read("a", "memory.current"), Bytes(128));
  EXPECT_EQ(Read("a", "memory.peak"), Bytes(128));
  EXPECT_THAT(Violations(), IsEmpty());
}

TEST_F(CgroupsTest, AnotherCgroupEmptiesTheStockOfTheCpu) {
  const uint32_t a = Make("a");
  const uint32_t b = Make("b");
  Take(a, 1);
  Take(b, 1);
  EXPECT_EQ(Read("a", "memory.current"), Bytes(1));
  EXPECT_EQ(Read("b", "memory.current"), Bytes(64));
  EXPECT_THAT(Violations(), IsEmpty());
}

TEST_F(CgroupsTest, AParentHoldsWhatItsChildrenHold) {
  Make("p");
  Write("p", "cgroup.subtree_control", "+memory");
  const uint32_t c = Make("p/c");
  Take(c, 100);
  EXPECT_EQ(Read("p", "memory.current"), Bytes(128));
  EXPECT_EQ(Read("p/c", "memory.current"), Bytes(128));
  EXPECT_THAT(Violations(), IsEmpty());
}

TEST_F(CgroupsTest, TheLimitHasPagesFreed) {
  const uint32_t a = Make("a");
  Write("a", "memory.max", std::to_string(100 * kPage));
  EXPECT_EQ(Take(a, 300), 300u);
  EXPECT_EQ(Read("a", "memory.peak"), Bytes(100));
  EXPECT_GT(reclaims_, 0);
  EXPECT_THAT(Read("a", "memory.events"), HasSubstr("oom 0\n"));
  EXPECT_THAT(Violations(), IsEmpty());
}

TEST_F(CgroupsTest, WhereNothingCanBeFreedSomebodyIsKilled) {
  const uint32_t a = Make("a");
  Write("a", "memory.max", std::to_string(100 * kPage));
  reclaimable_ = false;
  EXPECT_EQ(Take(a, 300), 100u);
  EXPECT_THAT(oom_of_, testing::ElementsAre(cgroups_->MemcgOf(a)));
  // Two looks until the stocks are empty, sixteen more before somebody is killed, and as many while the acting process has to die.
  EXPECT_EQ(Read("a", "memory.events"), "low 0\nhigh 0\nmax 35\noom 1\noom_kill 0\noom_group_kill 0\n");
  EXPECT_EQ(Read("a", "memory.events.local"), Read("a", "memory.events"));
  EXPECT_THAT(Violations(), IsEmpty());
}

TEST_F(CgroupsTest, AboveHighTheProcessReclaimsOnItsWayBack) {
  const uint32_t a = Make("a");
  Write("a", "memory.high", std::to_string(128 * kPage));
  Take(a, 128);
  cgroups_->ReturnToUser();
  EXPECT_EQ(reclaims_, 0);
  Take(a, 1);
  cgroups_->ReturnToUser();
  EXPECT_EQ(reclaims_, 1);
  EXPECT_EQ(Read("a", "memory.current"), Bytes(128));
  EXPECT_THAT(Read("a", "memory.events"), HasSubstr("high 1\n"));
}

TEST_F(CgroupsTest, WhatCannotBeReclaimedAboveHighIsSleptOff) {
  const uint32_t a = Make("a");
  Write("a", "memory.high", std::to_string(64 * kPage));
  reclaimable_ = false;
  Explanation why;
  tracer_.Explain(&why);
  Take(a, 129);
  cgroups_->ReturnToUser();
  tracer_.Explain(nullptr);
  // Twice the limit and 128 pages at once: the longest sleep.
  EXPECT_THAT(Read("a", "memory.pressure"), HasSubstr("total=2000000\n"));
  EXPECT_EQ(why.steps().back().kind, StepKind::kCgroupThrottle);
  EXPECT_THAT(ExplanationText(why), HasSubstr("milliseconds=2000"));
}

TEST_F(CgroupsTest, ALoweredLimitIsReachedAtOnce) {
  const uint32_t a = Make("a");
  Take(a, 200);
  Write("a", "memory.max", std::to_string(50 * kPage));
  EXPECT_EQ(Read("a", "memory.current"), Bytes(50));
  EXPECT_EQ(Read("a", "memory.max"), Bytes(50));
  EXPECT_THAT(Violations(), IsEmpty());
}

TEST_F(CgroupsTest, MemoryReclaimSaysWhenThereIsTooLittle) {
  const uint32_t a = Make("a");
  Take(a, 64);
  Write("a", "memory.reclaim", std::to_string(10 * kPage));
  EXPECT_EQ(Read("a", "memory.current"), Bytes(54));
  Write("a", "memory.reclaim", "1M", Errno::kEAGAIN);
  EXPECT_EQ(Read("a", "memory.current"), Bytes(0));
  EXPECT_EQ(Read("a", "memory.reclaim"), "none");
}

TEST_F(CgroupsTest, ARemovedCgroupKeepsItsCharges) {
  Make("p");
  Write("p", "cgroup.subtree_control", "+memory");
  const uint32_t c = Make("p/c");
  Take(c, 10);
  cgroups_->SetCurrent(0);
  EXPECT_EQ(cgroups_->Remove("p"), Errno::kEBUSY);
  EXPECT_EQ(cgroups_->Remove("p/c"), Errno::kOk);
  EXPECT_EQ(Read("p", "memory.current"), Bytes(10));
  EXPECT_THAT(Read("p", "cgroup.stat"), HasSubstr("nr_dying_descendants 1\n"));
  EXPECT_THAT(Violations(), IsEmpty());
  for (const Pfn pfn : pages_) memory_->FreePages(pfn, PageOrder(0));
  EXPECT_EQ(Read("p", "memory.current"), Bytes(0));
  EXPECT_THAT(Read("p", "cgroup.stat"), HasSubstr("nr_dying_descendants 0\n"));
  EXPECT_EQ(cgroups_->Remove("p"), Errno::kOk);
  EXPECT_EQ(memory_->charger(), nullptr);
}

TEST_F(CgroupsTest, KernelMemoryOfARemovedCgroupMovesUp) {
  Make("p");
  Write("p", "cgroup.subtree_control", "+memory");
  const uint32_t c = Make("p/c");
  cgroups_->SetCurrent(c);
  const std::optional<Pfn> table = memory_->AllocPages(kGfpKernelAccount, PageOrder(1));
  ASSERT_TRUE(table.has_value());
  memory_->frame(*table).state = FrameState::kPageTable;
  EXPECT_THAT(Read("p/c", "memory.stat"), HasSubstr("\nkernel 8192\n"));
  cgroups_->SetCurrent(0);
  EXPECT_EQ(cgroups_->Remove("p/c"), Errno::kOk);
  EXPECT_THAT(Read("p", "memory.stat"), HasSubstr("\nkernel 8192\n"));
  EXPECT_THAT(Violations(), IsEmpty());
  memory_->FreePages(*table, PageOrder(1));
  EXPECT_THAT(Read("p", "memory.stat"), HasSubstr("\nkernel 0\n"));
  // What the kernel gives back stays in the CPU's stock.
  EXPECT_EQ(Read("p", "memory.current"), Bytes(2));
  EXPECT_THAT(Violations(), IsEmpty());
}

TEST_F(CgroupsTest, SwapSpaceIsChargedAndLimited) {
  const uint32_t a = Make("a");
  const uint16_t memcg = cgroups_->MemcgOf(a);
  Write("a", "memory.swap.max", std::to_string(2 * kPage));
  EXPECT_EQ(cgroups_->SwapRoom(memcg, 100), 2u);
  EXPECT_EQ(cgroups_->ChargeSwap(memcg, 1), memcg);
  EXPECT_EQ(cgroups_->ChargeSwap(memcg, 1), memcg);
  EXPECT_EQ(cgroups_->ChargeSwap(memcg, 1), std::nullopt);
  EXPECT_EQ(Read("a", "memory.swap.events"), "high 0\nmax 1\nfail 1\n");
  EXPECT_EQ(Read("a", "memory.swap.current"), Bytes(2));
  EXPECT_EQ(cgroups_->Remove("a"), Errno::kOk);
  EXPECT_TRUE(cgroups_->Exists(memcg));
  cgroups_->UnchargeSwap(memcg, 2);
  EXPECT_FALSE(cgroups_->Exists(memcg));
}

TEST_F(CgroupsTest, ProtectionIsSharedByUse) {
  Make("p");
  Write("p", "cgroup.subtree_control", "+memory");
  Write("p", "memory.low", std::to_string(100 * kPage));
  const uint32_t x = Make("p/x");
  const uint32_t y = Make("p/y");
  Write("p/x", "memory.low", "max");
  Write("p/y", "memory.low", "max");
  Take(x, 192);
  Take(y, 64);
  // 256 pages claim what 100 are protected above: by three to one.
  for (const char* path : {"p", "p/x", "p/y"}) cgroups_->CalculateProtection(0, cgroups_->MemcgOf(*cgroups_->Find(path)));
  EXPECT_EQ(cgroups_->memcg(cgroups_->MemcgOf(x)).effective_low, 75u);
  EXPECT_EQ(cgroups_->memcg(cgroups_->MemcgOf(y)).effective_low, 25u);
}

TEST_F(CgroupsTest, EventsShowUpAboveButNotInTheirLocalFile) {
  Make("p");
  Write("p", "cgroup.subtree_control", "+memory");
  const uint32_t c = Make("p/c");
  cgroups_->CountMemcgEvent(cgroups_->MemcgOf(c), MemcgEvent::kHigh);
  EXPECT_THAT(Read("p", "memory.events"), HasSubstr("high 1\n"));
  EXPECT_THAT(Read("p", "memory.events.local"), HasSubstr("high 0\n"));
}

struct WriteCase {
  const char* name;
  const char* file;
  const char* value;
  Errno error;
  const char* reads;
};
class CgroupFileTest : public CgroupsTest, public testing::WithParamInterface<WriteCase> {};

TEST_P(CgroupFileTest, TakesWhatTheKernelTakes) {
  Make("a");
  Write("a", GetParam().file, GetParam().value, GetParam().error);
  EXPECT_EQ(Read("a", GetParam().file), GetParam().reads);
}

INSTANTIATE_TEST_SUITE_P(Files, CgroupFileTest,
                         testing::Values(WriteCase{"Bytes", "memory.max", "16777216", Errno::kOk, "16777216\n"},
                                         WriteCase{"RoundedDownToPages", "memory.max", "16777217\n", Errno::kOk, "16777216\n"},
                                         WriteCase{"Suffix", "memory.high", "12M", Errno::kOk, "12582912\n"},
                                         WriteCase{"Hexadecimal", "memory.low", "0x2000", Errno::kOk, "8192\n"},
                                         WriteCase{"Max", "memory.min", "max", Errno::kOk, "max\n"},
                                         WriteCase{"SwapMax", "memory.swap.max", "0", Errno::kOk, "0\n"},
                                         WriteCase{"Negative", "memory.max", "-1", Errno::kEINVAL, "max\n"},
                                         WriteCase{"Word", "memory.max", "much", Errno::kEINVAL, "max\n"},
                                         WriteCase{"TwoSuffixes", "memory.max", "1KB", Errno::kEINVAL, "max\n"},
                                         WriteCase{"OomGroup", "memory.oom.group", "1", Errno::kOk, "1\n"},
                                         WriteCase{"OomGroupOfTwo", "memory.oom.group", "2", Errno::kEINVAL, "0\n"},
                                         WriteCase{"ReadOnly", "memory.current", "1", Errno::kEACCES, "0\n"},
                                         WriteCase{"NoSuchFile", "memory.limit", "1", Errno::kENOENT, "none"},
                                         WriteCase{"Controller", "cgroup.subtree_control", "+memory", Errno::kOk, "memory\n"},
                                         WriteCase{"NoController", "cgroup.subtree_control", "+magic", Errno::kEINVAL, "\n"},
                                         WriteCase{"Type", "cgroup.type", "threaded", Errno::kEACCES, "domain\n"}),
                         [](const auto& test) { return test.param.name; });

TEST_F(CgroupsTest, TheHierarchyHasItsRules) {
  EXPECT_EQ(cgroups_->Make("a/b").error(), Errno::kENOENT);
  Make("a");
  EXPECT_EQ(cgroups_->Make("a").error(), Errno::kEEXIST);
  EXPECT_EQ(cgroups_->Make("memory.stat").error(), Errno::kEEXIST);
  EXPECT_EQ(cgroups_->Make("x\ny").error(), Errno::kEINVAL);
  Make("a/b");
  EXPECT_EQ(cgroups_->PathOf(*cgroups_->Find("a/b")), "/a/b");
  // Controllers come from above, and not to where processes are.
  EXPECT_EQ(Read("a/b", "memory.max"), "none");
  EXPECT_EQ(cgroups_->Write(*cgroups_->Find("a/b"), "cgroup.subtree_control", "+memory", false).error, Errno::kENOENT);
  EXPECT_EQ(cgroups_->Write(*cgroups_->Find("a"), "cgroup.subtree_control", "+memory", true).error, Errno::kEBUSY);
  Write("a", "cgroup.subtree_control", "+memory");
  EXPECT_EQ(Read("a/b", "memory.max"), "max\n");
  Write("", "cgroup.subtree_control", "-memory", Errno::kEBUSY);
  EXPECT_FALSE(cgroups_->Write(0, "cgroup.subtree_control", "+cpu", false).unimplemented.empty());
  EXPECT_EQ(cgroups_->Remove(""), Errno::kEBUSY);
}

TEST_F(CgroupsTest, WithoutAControllerOfItsOwnTheOneAboveIsCharged) {
  Make("a");
  const uint32_t b = Make("a/b");
  Take(b, 1);
  EXPECT_EQ(Read("a", "memory.current"), Bytes(64));
  Write("a", "cgroup.subtree_control", "+memory");
  Take(b, 1);
  EXPECT_EQ(Read("a/b", "memory.current"), Bytes(64));
  // Taken away again: its pages stay, the next ones are charged above.
  Write("a", "cgroup.subtree_control", "-memory");
  EXPECT_EQ(Read("a/b", "memory.current"), "none");
  Take(b, 1);
  EXPECT_THAT(Violations(), IsEmpty());
}

// Random hierarchies, limits, charges: what is counted is what is there, after every step.
TEST_F(CgroupsTest, RandomProgramsKeepTheSums) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    SetUp();
    pages_.clear();
    Random random(seed);
    for (int step = 0; step < 400; ++step) {
      const std::vector<uint32_t> all = cgroups_->All();
      const uint32_t one = all[random.Below(all.size())];
      const std::string path = cgroups_->PathOf(one).substr(1);
      cgroups_->SetCurrent(0);
      switch (random.Below(8)) {
        case 0:
          if (all.size() < 12)
            (void)cgroups_->Make(path + (path.empty() ? "" : "/") + std::string(1, static_cast<char>('a' + random.Below(3))));
          break;
        case 1:
          if (random.Below(3) == 0) (void)cgroups_->Remove(path);
          break;
        case 2:
          (void)cgroups_->Write(one, "cgroup.subtree_control", random.Below(4) == 0 ? "-memory" : "+memory", false);
          break;
        case 3: {
          static constexpr const char* kFiles[] = {"memory.max", "memory.high", "memory.low", "memory.min", "memory.reclaim"};
          const std::string value = random.Below(3) == 0 ? "max" : std::to_string(random.Below(300) * kPage);
          (void)cgroups_->Write(one, kFiles[random.Below(5)], value, false);
          break;
        }
        case 4:
          for (uint64_t i = 0; i < 40 && !pages_.empty(); ++i) {
            const size_t which = random.Below(pages_.size());
            memory_->FreePages(pages_[which], PageOrder(0));
            pages_.erase(pages_.begin() + static_cast<ptrdiff_t>(which));
          }
          break;
        default:
          dies_ = false;
          if (pages_.size() < 3000) Take(one, random.Below(150));
          cgroups_->ReturnToUser();
          break;
      }
      const std::vector<std::string> violations = Violations();
      ASSERT_THAT(violations, IsEmpty()) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace mmlab
