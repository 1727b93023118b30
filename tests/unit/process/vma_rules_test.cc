#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/arch/layout.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/test_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kBase = 0x40000000;
constexpr uint32_t kPrivateAnon = 0x22;
constexpr uint32_t kFixed = 0x10;

// A small x86-32 machine with one process; addresses are pages from kBase.
class Lab {
 public:
  Lab() : memory_(MakeTestMemory(4096, tracer_)), files_(*memory_, vm_stat_, tracer_) {
    processes_ = std::make_unique<Processes>(GetLayout(LayoutKind::kX86_32), *memory_, files_, vm_stat_, tracer_, true, 1);
    processes_->limits().total_ram = PageCount(4096);
    processes_->limits().shmmax = processes_->limits().shmall = 0xfeffffff;
    EXPECT_TRUE(files_.CreateFile("/subject", FileKind::kExt4, kPage, "", true).ok());
    ElfImage image;
    image.path = "/subject";
    image.entry = 0x8048000;
    image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x8048000, kPage, kPage, 5, kPage},
                             {ProgramHeader::Type::kGnuStack, 0, 0, 0, 0, 6, 16}};
    pid = processes_->Create("lab", 1000, false).value();
    EXPECT_TRUE(processes_->Exec(pid, image, nullptr, {"lab"}, {}).ok());
  }

  Processes& operator*() { return *processes_; }
  Processes* operator->() { return processes_.get(); }

  void Map(uint64_t page, uint64_t pages, uint32_t prot = 3, uint32_t flags = kPrivateAnon) {
    EXPECT_TRUE(processes_->Mmap(pid, kBase + page * kPage, pages * kPage, prot, flags | kFixed, -1, 0).ok());
  }
  void Write(uint64_t page) {
    AccessRequest request;
    request.kind = AccessKind::kStore;
    request.address = kBase + page * kPage;
    request.length = 1;
    AccessResult result;
    std::optional<Signal> signal;
    std::string data;
    EXPECT_EQ(processes_->Access(pid, request, result, signal, data), Errno::kOk);
    EXPECT_FALSE(signal.has_value());
  }
  // "0-4 rw-p, 6-7 r--p": what lies between kBase and 0x50000000.
  std::string Picture() {
    std::string picture;
    for (const VmAreaView& area : processes_->VmAreas(*processes_->Find(pid))) {
      if (area.start.raw() < kBase || area.start.raw() >= 0x50000000) continue;
      absl::StrAppend(&picture, picture.empty() ? "" : ", ", (area.start.raw() - kBase) / kPage, "-", (area.end.raw() - kBase) / kPage, " ",
                      area.permissions);
    }
    return picture;
  }

  Pid pid;

 private:
  Tracer tracer_;
  VmStat vm_stat_;
  std::unique_ptr<BuddyMemory> memory_;
  Files files_;
  std::unique_ptr<Processes> processes_;
};

uint64_t At(uint64_t page) { return kBase + page * kPage; }

struct RuleCase {
  const char* name;
  std::function<void(Lab&)> program;
  const char* picture;
};
class VmaRulesTest : public testing::TestWithParam<RuleCase> {};

TEST_P(VmaRulesTest, LeavesTheseVmas) {
  Lab lab;
  GetParam().program(lab);
  EXPECT_EQ(lab.Picture(), GetParam().picture);
}

INSTANTIATE_TEST_SUITE_P(Merging, VmaRulesTest,
                         testing::Values(RuleCase{"EqualNeighboursAreOne",
                                                  [](Lab& l) {
                                                    l.Map(0, 2);
                                                    l.Map(2, 2);
                                                  },
                                                  "0-4 rw-p"},
                                         RuleCase{"TheHoleJoinsBothSides",
                                                  [](Lab& l) {
                                                    l.Map(0, 2);
                                                    l.Map(4, 2);
                                                    l.Map(2, 2);
                                                  },
                                                  "0-6 rw-p"},
                                         RuleCase{"OtherPermissionsStayApart",
                                                  [](Lab& l) {
                                                    l.Map(0, 2);
                                                    l.Map(2, 2, 1);
                                                  },
                                                  "0-2 rw-p, 2-4 r--p"},
                                         RuleCase{"BetweenTwoTouchedSidesTheUpperGrows",
                                                  [](Lab& l) {
                                                    l.Map(0, 2);
                                                    l.Write(0);
                                                    l.Map(4, 2);
                                                    l.Write(4);
                                                    l.Map(2, 2);
                                                  },
                                                  "0-2 rw-p, 2-6 rw-p"},
                                         RuleCase{"SharedMappingsHaveEachTheirOwnFile",
                                                  [](Lab& l) {
                                                    l.Map(0, 2, 3, 0x21);
                                                    l.Map(2, 2, 3, 0x21);
                                                  },
                                                  "0-2 rw-s, 2-4 rw-s"},
                                         RuleCase{"ProtectSplitsInThree",
                                                  [](Lab& l) {
                                                    l.Map(0, 6);
                                                    EXPECT_EQ(l->Mprotect(l.pid, At(2), 2 * kPage, 1), Errno::kOk);
                                                  },
                                                  "0-2 rw-p, 2-4 r--p, 4-6 rw-p"},
                                         RuleCase{"ProtectBackJoinsAgain",
                                                  [](Lab& l) {
                                                    l.Map(0, 6);
                                                    EXPECT_EQ(l->Mprotect(l.pid, At(2), 2 * kPage, 1), Errno::kOk);
                                                    EXPECT_EQ(l->Mprotect(l.pid, At(2), 2 * kPage, 3), Errno::kOk);
                                                  },
                                                  "0-6 rw-p"},
                                         RuleCase{"ProtectShiftsTheBoundaryUp",
                                                  [](Lab& l) {
                                                    l.Map(0, 2);
                                                    l.Map(2, 4, 1);
                                                    EXPECT_EQ(l->Mprotect(l.pid, At(2), kPage, 3), Errno::kOk);
                                                  },
                                                  "0-3 rw-p, 3-6 r--p"},
                                         RuleCase{"ProtectShiftsTheBoundaryDown",
                                                  [](Lab& l) {
                                                    l.Map(0, 4, 1);
                                                    l.Map(4, 2);
                                                    EXPECT_EQ(l->Mprotect(l.pid, At(3), kPage, 3), Errno::kOk);
                                                  },
                                                  "0-3 r--p, 3-6 rw-p"},
                                         RuleCase{"UnmapLeavesBothEnds",
                                                  [](Lab& l) {
                                                    l.Map(0, 6);
                                                    EXPECT_EQ(l->Munmap(l.pid, At(2), 2 * kPage), Errno::kOk);
                                                  },
                                                  "0-2 rw-p, 4-6 rw-p"},
                                         RuleCase{"MoveOfUntouchedMemoryMergesThere",
                                                  [](Lab& l) {
                                                    l.Map(0, 2);
                                                    l.Map(10, 2);
                                                    EXPECT_TRUE(l->Mremap(l.pid, At(0), 2 * kPage, 2 * kPage, 3, At(12)).ok());
                                                  },
                                                  "10-14 rw-p"},
                                         RuleCase{"MoveOfTouchedMemoryStaysApart",
                                                  [](Lab& l) {
                                                    l.Map(0, 2);
                                                    l.Write(0);
                                                    l.Map(10, 2);
                                                    EXPECT_TRUE(l->Mremap(l.pid, At(0), 2 * kPage, 2 * kPage, 3, At(12)).ok());
                                                  },
                                                  "10-12 rw-p, 12-14 rw-p"},
                                         RuleCase{"GrowsInPlaceUpToTheNext",
                                                  [](Lab& l) {
                                                    l.Map(0, 2);
                                                    l.Map(4, 1, 1);
                                                    EXPECT_EQ(l->Mremap(l.pid, At(0), 2 * kPage, 4 * kPage, 0, 0).value(), At(0));
                                                  },
                                                  "0-4 rw-p, 4-5 r--p"}),
                         [](const auto& tested) { return tested.param.name; });

struct ErrnoCase {
  const char* name;
  std::function<Errno(Lab&)> call;
  Errno error;
};
class VmaErrnoTest : public testing::TestWithParam<ErrnoCase> {};

TEST_P(VmaErrnoTest, AnswersAsLinux) {
  Lab lab;
  lab.Map(0, 4);
  EXPECT_EQ(GetParam().call(lab), GetParam().error) << ErrnoName(GetParam().error).data();
}

INSTANTIATE_TEST_SUITE_P(
    Checks, VmaErrnoTest,
    testing::Values(
        ErrnoCase{"MmapLengthZero", [](Lab& l) { return l->Mmap(l.pid, 0, 0, 3, kPrivateAnon, -1, 0).error(); }, Errno::kEINVAL},
        ErrnoCase{"MmapLengthWraps", [](Lab& l) { return l->Mmap(l.pid, 0, 0xfffff001, 3, kPrivateAnon, -1, 0).error(); }, Errno::kENOMEM},
        ErrnoCase{"MmapBadDescriptor", [](Lab& l) { return l->Mmap(l.pid, 0, 0, 3, 2, 77, 0).error(); }, Errno::kEBADF},
        ErrnoCase{"MmapBelowMinimum", [](Lab& l) { return l->Mmap(l.pid, 0x1000, kPage, 3, kPrivateAnon | kFixed, -1, 0).error(); },
                  Errno::kEPERM},
        ErrnoCase{"MmapNoReplace", [](Lab& l) { return l->Mmap(l.pid, At(1), kPage, 3, kPrivateAnon | 0x100000, -1, 0).error(); },
                  Errno::kEEXIST},
        ErrnoCase{"MmapNeitherSharedNorPrivate", [](Lab& l) { return l->Mmap(l.pid, 0, kPage, 3, 0x20, -1, 0).error(); }, Errno::kEINVAL},
        ErrnoCase{"MunmapUnaligned", [](Lab& l) { return l->Munmap(l.pid, At(0) + 1, kPage); }, Errno::kEINVAL},
        ErrnoCase{"MunmapNothing", [](Lab& l) { return l->Munmap(l.pid, At(100), kPage); }, Errno::kOk},
        ErrnoCase{"MunmapBeyondUserSpace", [](Lab& l) { return l->Munmap(l.pid, 0xc0000000, kPage); }, Errno::kEINVAL},
        ErrnoCase{"MprotectHole", [](Lab& l) { return l->Mprotect(l.pid, At(2), 4 * kPage, 1); }, Errno::kENOMEM},
        ErrnoCase{"MprotectUnknownBits", [](Lab& l) { return l->Mprotect(l.pid, At(0), kPage, 0x13); }, Errno::kEINVAL},
        ErrnoCase{"MremapUnmapped", [](Lab& l) { return l->Mremap(l.pid, At(50), kPage, 2 * kPage, 1, 0).error(); }, Errno::kEFAULT},
        ErrnoCase{"MremapAcrossTheEnd", [](Lab& l) { return l->Mremap(l.pid, At(2), 3 * kPage, 4 * kPage, 1, 0).error(); }, Errno::kEFAULT},
        ErrnoCase{"MremapOverlap", [](Lab& l) { return l->Mremap(l.pid, At(0), 2 * kPage, 2 * kPage, 3, At(1)).error(); }, Errno::kEINVAL},
        ErrnoCase{"MlockHole", [](Lab& l) { return l->Mlock(l.pid, At(3), 3 * kPage, 0); }, Errno::kENOMEM},
        ErrnoCase{"MlockUnknownFlag", [](Lab& l) { return l->Mlock(l.pid, At(0), kPage, 2); }, Errno::kEINVAL},
        ErrnoCase{"MlockallNothing", [](Lab& l) { return l->Mlockall(l.pid, 4); }, Errno::kEINVAL},
        ErrnoCase{"MadviseUnknown", [](Lab& l) { return l->Madvise(l.pid, At(0), kPage, 99); }, Errno::kEINVAL},
        ErrnoCase{"MadviseHole", [](Lab& l) { return l->Madvise(l.pid, At(3), 2 * kPage, 4); }, Errno::kENOMEM},
        ErrnoCase{"MsyncAsyncAndSync", [](Lab& l) { return l->Msync(l.pid, At(0), kPage, 5); }, Errno::kEINVAL},
        ErrnoCase{"MincoreHole", [](Lab& l) { return l->Mincore(l.pid, At(3), 2 * kPage).error(); }, Errno::kENOMEM},
        ErrnoCase{"NoSuchProcess", [](Lab& l) { return l->Munmap(Pid(999), At(0), kPage); }, Errno::kESRCH}),
    [](const auto& tested) { return tested.param.name; });

// A stack grows down to an access, but not nearer than 256 pages to what lies below it.
TEST(StackTest, GrowsToTheGuardGap) {
  Lab lab;
  lab.Map(1000, 1, 3, kPrivateAnon | 0x100);
  lab.Map(0, 500);
  lab.Write(800);
  EXPECT_EQ(lab.Picture(), "0-500 rw-p, 800-1001 rw-p");
  AccessRequest request;
  request.kind = AccessKind::kStore;
  request.address = At(700);
  request.length = 1;
  AccessResult result;
  std::optional<Signal> signal;
  std::string data;
  lab->Access(lab.pid, request, result, signal, data);
  ASSERT_TRUE(signal.has_value());
  EXPECT_EQ(signal->code, kSegvMaperr);
}

}  // namespace
}  // namespace mmlab
