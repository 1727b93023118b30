#include <gtest/gtest.h>

#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "server/base/random.h"
#include "tests/unit/process/memory_lab.h"

// A million operations of processes that fork, share, limit and end, on a few pages where everything collides; now and then every counter
// is compared with a recount. MMLAB_RANDOM_OPERATIONS gives another number.

namespace mmlab {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr uint64_t kOperations = 100'000;
#else
constexpr uint64_t kOperations = 1'000'000;
#endif
constexpr uint64_t kCheckEvery = 997;
constexpr uint64_t kRegionPages = 192;
constexpr size_t kMostTasks = 9;

class Crowd {
 public:
  Crowd(LayoutKind layout, uint64_t seed) : random_(seed), lab_(layout, seed % 2 == 0), program_(Program(layout)) {
    lab_.processes->limits().shmmax = lab_.processes->limits().shmall = ~uint64_t{0};
    lab_.processes->limits().anon_vma_name = seed % 3 == 0;
    lab_.processes->limits().total_swap = PageCount(1000);
    pids_.push_back(lab_.pid);
  }

  MemoryLab& lab() { return lab_; }

  void Step() {
    if (pids_.empty()) Begin();
    ASSERT_FALSE(pids_.empty());
    const size_t which = random_.Below(pids_.size());
    const Pid pid = pids_[which];
    if (lab_.processes->Held(pid) && !OneIn(20)) return;  // It waits in vfork; now and then somebody kills it.
    const uint64_t dice = random_.Below(1000);
    if (dice < 12) {
      Fork(pid);
    } else if (dice < 20 || lab_.processes->Held(pid)) {
      lab_.processes->Exit(pid, 0);
      Forget();
    } else if (dice < 23) {
      (void)lab_.processes->Exec(pid, program_, nullptr, {"crowd", std::string(random_.Below(9000), 'a')}, {"A=1"}).ok();
      Forget();
    } else if (dice < 40) {
      Limit(pid);
    } else if (dice < 420) {
      Map(pid);
    } else if (dice < 600) {
      Advise(pid);
    } else if (dice < 660) {
      Files(pid);
    } else if (dice < 700) {
      Shm(pid);
    } else {
      Access(pid);
    }
  }

  void EndAll() {
    while (!pids_.empty()) {
      ASSERT_EQ(lab_.processes->Exit(pids_.front(), 0), Errno::kOk);
      Forget();
    }
  }

 private:
  static ElfImage Program(LayoutKind layout) {
    ElfImage image;
    image.path = "/program";
    const uint64_t text = layout == LayoutKind::kArm64 ? 0x400000 : 0x8048000;
    image.program_headers = {{ProgramHeader::Type::kLoad, 0, text, kPage, kPage, 5, kPage},
                             {ProgramHeader::Type::kLoad, 0, text + kPage, kPage / 2, 5 * kPage, 6, kPage},
                             {ProgramHeader::Type::kGnuStack, 0, 0, 0, 0, 6, 16}};
    return image;
  }

  bool OneIn(uint64_t n) { return random_.Below(n) == 0; }
  uint64_t At() { return MemoryLab::At(random_.Below(kRegionPages)); }
  uint64_t Length() { return (1 + random_.Below(OneIn(8) ? 40 : 6)) * kPage - (OneIn(10) ? 7 : 0); }
  uint32_t Prot() { return OneIn(3) ? static_cast<uint32_t>(random_.Below(8)) : 3; }

  void Begin() {
    lab_.processes->limits().overcommit_memory = 1;
    lab_.processes->limits().max_map_count = 65530;
    const Pid pid = lab_.processes->Create("crowd", OneIn(3) ? 0 : 1000, false).value();
    ASSERT_TRUE(lab_.processes->Exec(pid, program_, nullptr, {"crowd"}, {}).ok());
    ASSERT_TRUE(lab_.processes->Open(pid, "/tmpfs", 2, 10).ok());
    ASSERT_TRUE(lab_.processes->Open(pid, "/ext4", 2, 11).ok());
    pids_.push_back(pid);
  }

  void Fork(Pid pid) {
    static constexpr uint64_t kKinds[] = {0, 0, 0, 0x100, 0x4100, 0x10d00, 0x4000, 0x400};
    if (pids_.size() >= kMostTasks) return;
    const auto child = lab_.processes->Fork(pid, kKinds[random_.Below(std::size(kKinds))]);
    if (child.ok()) pids_.push_back(child.value());
  }

  // Threads end with their process, and exec gives a thread its process's number.
  void Forget() {
    std::vector<Pid> living;
    for (const auto& [pid, process] : lab_.processes->all()) living.push_back(pid);
    pids_ = std::move(living);
  }

  void Limit(Pid pid) {
    static constexpr uint32_t kResources[] = {2, 3, 8, 9};
    const uint64_t limit = OneIn(3) ? random_.Below(600) * kPage : ~uint64_t{0};
    lab_.processes->Setrlimit(pid, kResources[random_.Below(std::size(kResources))], limit, ~uint64_t{0});
    if (OneIn(4)) lab_.processes->limits().overcommit_memory = static_cast<int>(random_.Below(3));
    if (OneIn(4)) lab_.processes->limits().max_map_count = OneIn(2) ? 65530 : static_cast<int64_t>(20 + random_.Below(60));
    if (OneIn(2)) lab_.processes->Mlockall(pid, static_cast<uint32_t>(random_.Below(8)));
    if (OneIn(2)) lab_.processes->Munlockall(pid);
  }

  void Map(Pid pid) {
    switch (random_.Below(12)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        static constexpr uint32_t kMore[] = {0, 0, 0, 0x2000, 0x4000, 0x8000, 0x100, 0x100000};
        uint32_t flags = (OneIn(3) ? 1u : 2u) | (OneIn(5) ? 0u : kFixed) | kMore[random_.Below(std::size(kMore))];
        const bool anonymous = !OneIn(3);
        if (anonymous) flags |= 0x20;
        const int32_t fd = static_cast<int32_t>(10 + random_.Below(2));
        (void)lab_.processes->Mmap(pid, At(), Length(), Prot(), flags, anonymous ? -1 : fd, random_.Below(24) * kPage).ok();
        break;
      }
      case 4:
      case 5:
        lab_.processes->Munmap(pid, At(), Length());
        break;
      case 6:
      case 7:
        lab_.processes->Mprotect(pid, At(), Length(), Prot() | (OneIn(30) ? 0x01000000u : 0u));
        break;
      case 8:
      case 9: {
        const uint64_t length = Length();
        const uint64_t grown = OneIn(3) ? length : Length();
        (void)lab_.processes->Mremap(pid, At(), OneIn(20) ? 0 : length, grown, static_cast<uint32_t>(random_.Below(8)), At()).ok();
        break;
      }
      case 10:
        (void)lab_.processes->Sbrk(pid, (static_cast<int64_t>(random_.Below(41)) - 20) * static_cast<int64_t>(kPage / 2)).ok();
        break;
      default:
        lab_.processes->SetVmaName(pid, At(), Length(), OneIn(2) ? "one" : "");
    }
  }

  void Advise(Pid pid) {
    static constexpr int32_t kAdvice[] = {0, 1, 2, 3, 4, 4, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
    switch (random_.Below(8)) {
      case 0:
        lab_.processes->Mlock(pid, At(), Length(), static_cast<uint32_t>(random_.Below(2)));
        break;
      case 1:
        lab_.processes->Munlock(pid, At(), Length());
        break;
      case 2:
        lab_.processes->Msync(pid, At(), Length(), static_cast<uint32_t>(random_.Below(8)));
        break;
      case 3:
        (void)lab_.processes->Mincore(pid, At(), Length()).ok();
        break;
      default:
        lab_.processes->Madvise(pid, At(), Length(), kAdvice[random_.Below(std::size(kAdvice))]);
    }
  }

  void Files(Pid pid) {
    const auto fd = static_cast<int32_t>(10 + random_.Below(4));
    switch (random_.Below(6)) {
      case 0:
        lab_.processes->Ftruncate(pid, fd, random_.Below(26) * kPage + random_.Below(kPage));
        break;
      case 1:
        (void)lab_.processes->Pread(pid, fd, At() + random_.Below(kPage), random_.Below(3 * kPage), random_.Below(24 * kPage)).ok();
        break;
      case 2:
        (void)lab_.processes->Pwrite(pid, fd, At() + random_.Below(kPage), random_.Below(3 * kPage), random_.Below(24 * kPage)).ok();
        break;
      case 3: {
        const auto made = lab_.processes->MemfdCreate(pid, "m", 0);
        if (made.ok() && made.value() > 16) lab_.processes->Close(pid, static_cast<int32_t>(made.value()));
        break;
      }
      case 4:
        lab_.processes->Close(pid, static_cast<int32_t>(12 + random_.Below(6)));
        break;
      default:
        (void)lab_.processes->Open(pid, OneIn(2) ? "/tmpfs" : "/ext4", static_cast<uint32_t>(random_.Below(3)), fd).ok();
    }
  }

  void Shm(Pid pid) {
    static constexpr uint32_t kFlags[] = {0, 0x1000, 0x2000, 0x4000, 0x6000, 0x8000};
    const auto id = static_cast<int32_t>(random_.Below(6)) | (OneIn(2) ? 0 : static_cast<int32_t>(random_.Below(4) << 15));
    switch (random_.Below(4)) {
      case 0:
        (void)lab_.processes->Shmget(pid, static_cast<int32_t>(random_.Below(4)), random_.Below(9 * kPage), 0x380).ok();
        break;
      case 1:
        (void)lab_.processes->Shmat(pid, id, At() + (OneIn(4) ? 5 : 0), kFlags[random_.Below(std::size(kFlags))]).ok();
        break;
      case 2:
        lab_.processes->Shmdt(pid, At());
        break;
      default:
        if (OneIn(3)) lab_.processes->ShmRemove(pid, id);
    }
  }

  void Access(Pid pid) {
    AccessRequest request;
    request.kind = static_cast<AccessKind>(1 + random_.Below(6));
    request.address = At() + (OneIn(6) ? random_.Below(kPage) : 0);
    request.length = request.kind <= AccessKind::kStore ? uint64_t{1} << random_.Below(4) : random_.Below(12 * kPage);
    request.value = random_.Below(256);
    AccessResult result;
    std::optional<Signal> signal;
    std::string data;
    lab_.processes->Access(pid, request, result, signal, data);
  }

  Random random_;
  MemoryLab lab_;
  const ElfImage program_;
  std::vector<Pid> pids_;
};

class MillionTest : public testing::TestWithParam<LayoutKind> {};

TEST_P(MillionTest, NoCounterEverDisagrees) {
  const char* wished = std::getenv("MMLAB_RANDOM_OPERATIONS");
  const uint64_t operations = wished == nullptr ? kOperations : std::strtoull(wished, nullptr, 10);
  constexpr uint64_t kSeeds = 4;  // A fresh machine for each.
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Crowd crowd(GetParam(), seed);
    for (uint64_t step = 1; step <= operations / 3 / kSeeds + 1; ++step) {
      crowd.Step();
      if (HasFatalFailure()) return;
      if (step % kCheckEvery != 0) continue;
      ASSERT_EQ(crowd.lab().Violations(), std::vector<std::string>()) << "seed " << seed << " step " << step;
    }
    crowd.EndAll();
    ASSERT_EQ(crowd.lab().Violations(), std::vector<std::string>()) << "seed " << seed;
    EXPECT_EQ(crowd.lab().vm_stat.Get(NodeStat::kNrAnonPages), 0);
    EXPECT_EQ(crowd.lab().vm_stat.Get(NodeStat::kNrMapped), 0);
    EXPECT_EQ(crowd.lab().vm_stat.Get(NodeStat::kNrPageTablePages), 0);
    EXPECT_FALSE(crowd.lab().processes->any_held());
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, MillionTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64),
                         [](const auto& c) { return std::string(GetLayout(c.param).name); });

}  // namespace
}  // namespace mmlab
