#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

constexpr auto kX86 = LayoutKind::kX86_32;
constexpr auto kPae = LayoutKind::kX86_32Pae;
constexpr auto kArm = LayoutKind::kArm64;
constexpr uint32_t kPrivate = 0x2;
constexpr uint32_t kShared = 0x1;
constexpr int32_t kTmpfs = 10;
constexpr int32_t kExt4 = 11;

// What a program caused since its start: faults, resident pages by kind, page-table bytes in pages, the last signal.
std::string Picture(MemoryLab& lab, Pid who, uint64_t faults_before, const ResidentBytes& before, Bytes tables_before) {
  const Process& process = lab.process(who);
  const ResidentBytes now = lab.processes->Resident(process);
  const auto pages = [](Bytes a, Bytes b) { return (static_cast<int64_t>(a.raw()) - static_cast<int64_t>(b.raw())) / int64_t{kPage}; };
  std::string picture = absl::StrCat("faults ", process.minor_faults - faults_before, " anon ", pages(now.anon, before.anon), " file ",
                                     pages(now.file, before.file), " shmem ", pages(now.shmem, before.shmem), " tables ",
                                     pages(lab.processes->Status(process).vm_pte, tables_before));
  if (lab.signal.has_value()) {
    absl::StrAppend(&picture, lab.signal->number == SignalNumber::kSigBus ? " SIGBUS" : " SIGSEGV", " code ", lab.signal->code);
    if (lab.signal->x86_trap != 0) absl::StrAppend(&picture, " error ", lab.signal->x86_error_code);
  }
  return picture;
}

struct FaultCase {
  const char* name;
  LayoutKind layout;
  bool hardware_access_flag;
  std::function<void(MemoryLab&)> program;
  const char* picture;
};
class FaultTest : public testing::TestWithParam<FaultCase> {};

TEST_P(FaultTest, Causes) {
  MemoryLab lab(GetParam().layout, GetParam().hardware_access_flag);
  const Process& process = lab.process(lab.pid);
  const uint64_t faults = process.minor_faults;
  const ResidentBytes resident = lab.processes->Resident(process);
  const Bytes tables = lab.processes->Status(process).vm_pte;
  GetParam().program(lab);
  EXPECT_EQ(Picture(lab, lab.pid, faults, resident, tables), GetParam().picture);
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}

void Load(MemoryLab& lab, uint64_t page) { lab.Access(lab.pid, AccessKind::kLoad, page); }
void Store(MemoryLab& lab, uint64_t page) { lab.Access(lab.pid, AccessKind::kStore, page); }
void Execute(MemoryLab& lab, uint64_t page) { lab.Access(lab.pid, AccessKind::kExecute, page); }
void MapAnon(MemoryLab& lab, uint32_t prot = 3) { lab.Map(lab.pid, 0, 32, prot, kPrivateAnon); }
void MapFile(MemoryLab& lab, int32_t fd, uint32_t flags, uint32_t prot = 3, uint64_t pages = 24) {
  lab.Map(lab.pid, 0, pages, prot, flags, fd);
}

INSTANTIATE_TEST_SUITE_P(Anonymous, FaultTest,
                         testing::Values(FaultCase{"ReadMapsTheZeroPage", kX86, true, [](MemoryLab& l) { MapAnon(l), Load(l, 0); },
                                                   "faults 1 anon 0 file 0 shmem 0 tables 1"},
                                         FaultCase{"WriteTakesAFrame", kX86, true, [](MemoryLab& l) { MapAnon(l), Store(l, 0); },
                                                   "faults 1 anon 1 file 0 shmem 0 tables 1"},
                                         FaultCase{"ReadThenWriteFaultsTwice", kX86, true,
                                                   [](MemoryLab& l) { MapAnon(l), Load(l, 0), Store(l, 0); },
                                                   "faults 2 anon 1 file 0 shmem 0 tables 1"},
                                         FaultCase{"Arm64NeedsThreeTables", kArm, true, [](MemoryLab& l) { MapAnon(l), Store(l, 0); },
                                                   "faults 1 anon 1 file 0 shmem 0 tables 3"},
                                         FaultCase{"PaeHasItsPmdsAlready", kPae, true, [](MemoryLab& l) { MapAnon(l), Store(l, 0); },
                                                   "faults 1 anon 1 file 0 shmem 0 tables 1"},
                                         FaultCase{"UnmappingFreesTheTable", kX86, true,
                                                   [](MemoryLab& l) {
                                                     MapAnon(l), Store(l, 0);
                                                     EXPECT_EQ(l.processes->Munmap(l.pid, kBase, 32 * kPage), Errno::kOk);
                                                   },
                                                   "faults 1 anon 0 file 0 shmem 0 tables 0"},
                                         FaultCase{"PaeFreesThePmdToo", kPae, true,
                                                   [](MemoryLab& l) {
                                                     MapAnon(l), Store(l, 0);
                                                     EXPECT_EQ(l.processes->Munmap(l.pid, kBase, 32 * kPage), Errno::kOk);
                                                   },
                                                   "faults 1 anon 0 file 0 shmem 0 tables -1"},
                                         FaultCase{"WriteAfterReadOnlyAndBackCostsNothing", kX86, true,
                                                   [](MemoryLab& l) {
                                                     MapAnon(l), Store(l, 0);
                                                     EXPECT_EQ(l.processes->Mprotect(l.pid, kBase, 32 * kPage, 1), Errno::kOk);
                                                     EXPECT_EQ(l.processes->Mprotect(l.pid, kBase, 32 * kPage, 3), Errno::kOk);
                                                     Store(l, 0);
                                                   },
                                                   "faults 1 anon 1 file 0 shmem 0 tables 1"}),
                         [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Files, FaultTest,
    testing::Values(
        FaultCase{"ReadFaultsAround", kX86, true, [](MemoryLab& l) { MapFile(l, kExt4, kPrivate), Load(l, 3); },
                  "faults 1 anon 0 file 16 shmem 0 tables 1"},
        FaultCase{"TheWindowEndsWithTheFile", kX86, true, [](MemoryLab& l) { MapFile(l, kExt4, kPrivate), Load(l, 17); },
                  "faults 1 anon 0 file 4 shmem 0 tables 1"},
        FaultCase{"PrivateWriteCopies", kX86, true, [](MemoryLab& l) { MapFile(l, kTmpfs, kPrivate), Store(l, 3); },
                  "faults 1 anon 1 file 0 shmem 0 tables 1"},
        FaultCase{"PrivateWriteAfterReadReplaces", kX86, true, [](MemoryLab& l) { MapFile(l, kTmpfs, kPrivate), Load(l, 3), Store(l, 3); },
                  "faults 2 anon 1 file 0 shmem 15 tables 1"},
        FaultCase{"SharedExt4NotesTheFirstWrite", kX86, true, [](MemoryLab& l) { MapFile(l, kExt4, kShared), Load(l, 3), Store(l, 3); },
                  "faults 2 anon 0 file 16 shmem 0 tables 1"},
        FaultCase{"SharedTmpfsDoesNot", kX86, true, [](MemoryLab& l) { MapFile(l, kTmpfs, kShared), Load(l, 3), Store(l, 3); },
                  "faults 1 anon 0 file 0 shmem 16 tables 1"},
        FaultCase{"WithoutHardwareDirtyTmpfsDoesToo", kArm, false,
                  [](MemoryLab& l) { MapFile(l, kTmpfs, kShared), Load(l, 3), Store(l, 3); }, "faults 2 anon 0 file 0 shmem 16 tables 3"},
        FaultCase{"BeyondTheEndIsSigbusAndMapsAround", kX86, true, [](MemoryLab& l) { MapFile(l, kTmpfs, kShared), Load(l, 20); },
                  "faults 0 anon 0 file 0 shmem 4 tables 1 SIGBUS code 2 error 4"},
        FaultCase{"WriteBeyondTheEndMapsNothing", kX86, true, [](MemoryLab& l) { MapFile(l, kTmpfs, kShared), Store(l, 20); },
                  "faults 0 anon 0 file 0 shmem 0 tables 0 SIGBUS code 2 error 6"},
        FaultCase{"FailedFaultLeavesUpperTables", kArm, true, [](MemoryLab& l) { MapFile(l, kTmpfs, kShared), Store(l, 20); },
                  "faults 0 anon 0 file 0 shmem 0 tables 2 SIGBUS code 2"},
        FaultCase{"TruncationTakesPrivateCopiesToo", kX86, true,
                  [](MemoryLab& l) {
                    MapFile(l, kTmpfs, kPrivate), Store(l, 3), Store(l, 10);
                    EXPECT_EQ(l.processes->Ftruncate(l.pid, kTmpfs, 5 * kPage), Errno::kOk);
                  },
                  "faults 2 anon 1 file 0 shmem 0 tables 1"},
        FaultCase{"MsyncMakesTheNextWriteFaultAgain", kX86, true,
                  [](MemoryLab& l) {
                    MapFile(l, kExt4, kShared), Store(l, 3);
                    EXPECT_EQ(l.processes->Msync(l.pid, kBase, 20 * kPage, 4), Errno::kOk);
                    Store(l, 3);
                  },
                  "faults 2 anon 0 file 1 shmem 0 tables 1"}),
    [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Signals, FaultTest,
    testing::Values(FaultCase{"NoVma", kX86, true, [](MemoryLab& l) { Store(l, 0); },
                              "faults 0 anon 0 file 0 shmem 0 tables 0 SIGSEGV code 1 error 6"},
                    FaultCase{"WriteToReadOnlyAbsent", kX86, true, [](MemoryLab& l) { MapAnon(l, 1), Store(l, 0); },
                              "faults 0 anon 0 file 0 shmem 0 tables 0 SIGSEGV code 2 error 6"},
                    FaultCase{"WriteToReadOnlyPresent", kX86, true, [](MemoryLab& l) { MapAnon(l, 1), Load(l, 0), Store(l, 0); },
                              "faults 1 anon 0 file 0 shmem 0 tables 1 SIGSEGV code 2 error 7"},
                    FaultCase{"ProtNone", kX86, true, [](MemoryLab& l) { MapAnon(l, 0), Load(l, 0); },
                              "faults 0 anon 0 file 0 shmem 0 tables 0 SIGSEGV code 2 error 4"},
                    FaultCase{"KernelAddress", kX86, true, [](MemoryLab& l) { Load(l, (0xc0000000 - kBase) / kPage); },
                              "faults 0 anon 0 file 0 shmem 0 tables 0 SIGSEGV code 1 error 5"},
                    FaultCase{"PaeSaysItWasAFetch", kPae, true, [](MemoryLab& l) { MapAnon(l, 0), Execute(l, 0); },
                              "faults 0 anon 0 file 0 shmem 0 tables 0 SIGSEGV code 2 error 20"},
                    FaultCase{"PaeExecutesWhatItCanRead", kPae, true, [](MemoryLab& l) { MapAnon(l, 1), Execute(l, 0); },
                              "faults 1 anon 0 file 0 shmem 0 tables 1"},
                    FaultCase{"ArmDoesNot", kArm, true, [](MemoryLab& l) { MapAnon(l, 1), Load(l, 0), Execute(l, 0); },
                              "faults 1 anon 0 file 0 shmem 0 tables 3 SIGSEGV code 2"},
                    FaultCase{"ArmReadsWhatItCanWrite", kArm, true, [](MemoryLab& l) { MapAnon(l, 2), Load(l, 0); },
                              "faults 1 anon 0 file 0 shmem 0 tables 3"}),
    [](const auto& c) { return c.param.name; });

struct ForkCase {
  const char* name;
  LayoutKind layout;
  bool hardware_access_flag;
  std::function<void(MemoryLab&, Pid child)> program;
  uint64_t parent_faults;
  uint64_t child_faults;
};
class ForkTest : public testing::TestWithParam<ForkCase> {};

TEST_P(ForkTest, FaultsAfterwards) {
  MemoryLab lab(GetParam().layout, GetParam().hardware_access_flag);
  MapAnon(lab), Store(lab, 0);
  const Pid child = lab.processes->Fork(lab.pid, 0).value();
  const uint64_t before = lab.process(lab.pid).minor_faults;
  GetParam().program(lab, child);
  EXPECT_EQ(lab.process(lab.pid).minor_faults - before, GetParam().parent_faults);
  EXPECT_EQ(lab.process(child).minor_faults, GetParam().child_faults);
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}
void ChildLoad(MemoryLab& lab, Pid child) { lab.Access(child, AccessKind::kLoad, 0); }
void ChildStore(MemoryLab& lab, Pid child) { lab.Access(child, AccessKind::kStore, 0, 9); }
INSTANTIATE_TEST_SUITE_P(
    CopyOnWrite, ForkTest,
    testing::Values(ForkCase{"ReadingSharesThePage", kX86, true, [](MemoryLab& l, Pid c) { ChildLoad(l, c), Load(l, 0); }, 0, 0},
                    ForkCase{"TheFirstWriterCopiesTheSecondReuses", kX86, true,
                             [](MemoryLab& l, Pid c) {
                               ChildStore(l, c), Store(l, 0);
                               EXPECT_EQ(l.Access(c, AccessKind::kLoad, 0), 9);
                               EXPECT_EQ(l.Access(l.pid, AccessKind::kLoad, 0), 1);
                             },
                             1, 1},
                    ForkCase{"AnOldEntryFaultsWithoutHardwareFlag", kArm, false, [](MemoryLab& l, Pid c) { ChildLoad(l, c), Load(l, 0); },
                             0, 1},
                    ForkCase{"AWriteToAnOldEntryFaultsOnce", kArm, false, [](MemoryLab& l, Pid c) { ChildStore(l, c); }, 0, 1}),
    [](const auto& c) { return c.param.name; });

TEST(RssBatchTest, TheSixtySixthFaultFoldsTheCountersBeforeItIsCounted) {
  MemoryLab lab(kX86);
  lab.Map(lab.pid, 0, 100, 3, kPrivateAnon);
  const int start = lab.process(lab.pid).rss.events;
  const Bytes before = lab.processes->Status(lab.process(lab.pid)).rss_anon;
  uint64_t page = 0;
  for (int event = start; event < 65; ++event) Store(lab, page++);
  EXPECT_EQ(lab.processes->Status(lab.process(lab.pid)).rss_anon, before);
  const Bytes exact = lab.processes->Resident(lab.process(lab.pid)).anon;
  Store(lab, page);
  EXPECT_EQ(lab.processes->Status(lab.process(lab.pid)).rss_anon, exact);
}

TEST(LazyFreeTest, ShowsWhenTheBatchWasEmptied) {
  MemoryLab lab(kX86);
  MapAnon(lab), Store(lab, 0);
  const auto lazy_free = [&lab] {
    for (size_t i = 0; i < lab.processes->VmAreas(lab.process(lab.pid)).size(); ++i) {
      const Smaps smaps = lab.processes->AllSmaps(lab.process(lab.pid))[i];
      if (lab.processes->VmAreas(lab.process(lab.pid))[i].start.raw() == kBase) return smaps.lazy_free.raw();
    }
    return uint64_t{0};
  };
  EXPECT_EQ(lab.processes->Madvise(lab.pid, kBase, kPage, 8), Errno::kOk);
  EXPECT_EQ(lazy_free(), 0u);
  EXPECT_EQ(lab.processes->Madvise(lab.pid, kBase + kPage, kPage, 4), Errno::kOk);  // Any unmapping empties the batches.
  EXPECT_EQ(lazy_free(), kPage);
  Store(lab, 0);
  EXPECT_EQ(lazy_free(), 0u);
}

TEST(AccessTest, AStoreAcrossPagesNeedsBoth) {
  MemoryLab lab(kX86);
  lab.Map(lab.pid, 0, 1, 3, kPrivateAnon);
  AccessRequest request;
  request.kind = AccessKind::kStore;
  request.address = kBase + kPage - 2;
  request.length = 4;
  request.value = 0x11223344;
  AccessResult result;
  std::optional<Signal> signal;
  std::string data;
  EXPECT_EQ(lab.processes->Access(lab.pid, request, result, signal, data), Errno::kOk);
  ASSERT_TRUE(signal.has_value());
  EXPECT_EQ(signal->address, kBase + kPage);
  EXPECT_EQ(result.minor_faults, 1u);
  request.kind = AccessKind::kLoad;
  request.length = 2;
  signal.reset();
  EXPECT_EQ(lab.processes->Access(lab.pid, request, result, signal, data), Errno::kOk);
  EXPECT_EQ(result.value, 0u);  // Nothing was written to the first page.
}

TEST(AccessTest, WithoutMemoryAnswersEnomem) {
  MemoryLab lab(kX86, true, 256);
  lab.Map(lab.pid, 0, 512, 3, kPrivateAnon);
  AccessRequest request;
  request.kind = AccessKind::kTouchWrite;
  request.address = kBase;
  request.length = 512 * kPage;
  AccessResult result;
  std::optional<Signal> signal;
  std::string data;
  EXPECT_EQ(lab.processes->Access(lab.pid, request, result, signal, data), Errno::kENOMEM);
  EXPECT_GT(result.done, 0u);
  EXPECT_LT(result.done, 256u);
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
  EXPECT_EQ(lab.processes->Munmap(lab.pid, kBase, 512 * kPage), Errno::kOk);
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}

TEST(ExplainTest, AFaultTellsItsWalkAndItsDecision) {
  MemoryLab lab(kX86);
  MapAnon(lab), Load(lab, 0);
  Explanation why;
  lab.tracer.Explain(&why);
  Store(lab, 0);
  lab.tracer.Explain(nullptr);
  const std::string text = ExplanationText(why);
  for (const char* expected : {"page_table_walk", "level=pgd", "level=pte", "special", "vm_flags allow the access",
                               "the zero page is mapped", "a private copy is mapped writable"}) {
    EXPECT_NE(text.find(expected), std::string::npos) << expected << " is not in\n" << text;
  }
}

}  // namespace
}  // namespace mmlab
