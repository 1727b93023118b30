#include <gtest/gtest.h>

#include <string>

#include "tests/unit/process/memory_lab.h"

// Every call says why, when it does something and when it refuses.

namespace mmlab {
namespace {

struct ExplainCase {
  const char* name;
  void (*call)(MemoryLab& lab);
  const char* says;  // In one of its steps.
};
class ExplainTest : public testing::TestWithParam<ExplainCase> {};

void Access(MemoryLab& lab, AccessKind kind, uint64_t page) { lab.Access(lab.pid, kind, page); }

// Pages 0-3 private anonymous (0 touched), 4-5 shared anonymous, 6-7 of the tmpfs file, shared; 8 read-only and private; from 9 nothing.
TEST_P(ExplainTest, SaysWhy) {
  MemoryLab lab(LayoutKind::kX86_32);
  lab.processes->limits().shmmax = lab.processes->limits().shmall = 0x10000000;
  lab.Map(lab.pid, 0, 4, 3, kPrivateAnon);
  lab.Map(lab.pid, 4, 2, 3, kSharedAnon);
  lab.Map(lab.pid, 6, 2, 3, 0x1, 10);
  lab.Map(lab.pid, 8, 1, 1, kPrivateAnon);
  Access(lab, AccessKind::kStore, 0);
  Explanation why;
  lab.tracer.Explain(&why);
  GetParam().call(lab);
  lab.tracer.Explain(nullptr);
  std::string all;
  for (const ExplanationStep& step : why.steps()) all += step.text + "\n";
  EXPECT_NE(all.find(GetParam().says), std::string::npos) << all;
}

uint64_t At(uint64_t page) { return MemoryLab::At(page); }

INSTANTIATE_TEST_SUITE_P(
    Mappings, ExplainTest,
    testing::Values(
        ExplainCase{"MmapGap", [](MemoryLab& l) { (void)l.processes->Mmap(l.pid, 0, kPage, 1, kPrivateAnon, -1, 0).ok(); }, "highest hole"},
        ExplainCase{"MmapHint", [](MemoryLab& l) { (void)l.processes->Mmap(l.pid, At(9), kPage, 3, kPrivateAnon, -1, 0).ok(); },
                    "the hint is free"},
        ExplainCase{"MmapTakenHint", [](MemoryLab& l) { (void)l.processes->Mmap(l.pid, At(1), kPage, 3, kPrivateAnon, -1, 0).ok(); },
                    "the hint is not free"},
        ExplainCase{"MmapMerged", [](MemoryLab& l) { (void)l.processes->Mmap(l.pid, At(9), kPage, 1, kPrivateAnon | kFixed, -1, 0).ok(); },
                    "the VMA before it was extended"},
        ExplainCase{"MmapAlone", [](MemoryLab& l) { (void)l.processes->Mmap(l.pid, At(9), kPage, 3, kPrivateAnon | kFixed, -1, 0).ok(); },
                    "a VMA of its own"},
        ExplainCase{"MmapRefused", [](MemoryLab& l) { (void)l.processes->Mmap(l.pid, 0, 0, 3, kPrivateAnon, -1, 0).ok(); }, "length 0"},
        ExplainCase{"MunmapHole", [](MemoryLab& l) { l.processes->Munmap(l.pid, At(1), kPage); }, "split; the new VMA is"},
        ExplainCase{"MunmapNothing", [](MemoryLab& l) { l.processes->Munmap(l.pid, At(20), kPage); }, "nothing is mapped"},
        ExplainCase{"MprotectChanges", [](MemoryLab& l) { l.processes->Mprotect(l.pid, At(0), 4 * kPage, 1); }, "permissions change"},
        ExplainCase{"MprotectCharges", [](MemoryLab& l) { l.processes->Mprotect(l.pid, At(8), kPage, 3); }, "becomes writable is charged"},
        ExplainCase{"MprotectSame", [](MemoryLab& l) { l.processes->Mprotect(l.pid, At(0), 4 * kPage, 3); }, "these permissions already"},
        ExplainCase{"MremapMoves", [](MemoryLab& l) { (void)l.processes->Mremap(l.pid, At(0), kPage, kPage, 3, At(30)).ok(); },
                    "entries move"},
        ExplainCase{"MremapGrows", [](MemoryLab& l) { (void)l.processes->Mremap(l.pid, At(8), kPage, 3 * kPage, 0, 0).ok(); },
                    "grown in place"},
        ExplainCase{"MremapShrinks", [](MemoryLab& l) { (void)l.processes->Mremap(l.pid, At(0), 4 * kPage, kPage, 0, 0).ok(); },
                    "shrinking"},
        ExplainCase{"BrkGrows", [](MemoryLab& l) { (void)l.processes->Sbrk(l.pid, 2 * kPage).ok(); }, "a VMA of its own"},
        ExplainCase{"BrkWithinThePage", [](MemoryLab& l) { (void)(l.processes->Sbrk(l.pid, 1).ok() && l.processes->Sbrk(l.pid, 1).ok()); },
                    "moves within its page"},
        ExplainCase{"BrkTooLow", [](MemoryLab& l) { (void)l.processes->Brk(l.pid, 0).ok(); }, "below the start of the heap"},
        ExplainCase{"Locks", [](MemoryLab& l) { l.processes->Mlock(l.pid, At(0), kPage, 0); }, "faulted in"},
        ExplainCase{"LocksOnFault", [](MemoryLab& l) { l.processes->Mlock(l.pid, At(0), kPage, 1); }, "when they are touched"},
        ExplainCase{"Unlocks", [](MemoryLab& l) { l.processes->Munlock(l.pid, At(0), kPage); }, "it is so already"},
        ExplainCase{"LocksAll", [](MemoryLab& l) { l.processes->Mlockall(l.pid, 2); }, "MCL_FUTURE"},
        ExplainCase{"UnlocksAll", [](MemoryLab& l) { l.processes->Munlockall(l.pid); }, "not locked any more"},
        ExplainCase{"Advice", [](MemoryLab& l) { l.processes->Madvise(l.pid, At(0), kPage, 4); }, "MADV_DONTNEED"},
        ExplainCase{"AdviceRefused", [](MemoryLab& l) { l.processes->Madvise(l.pid, At(0), kPage, 9); }, "file mappings only"},
        ExplainCase{"MsyncOfShmem", [](MemoryLab& l) { l.processes->Msync(l.pid, At(6), kPage, 4); }, "lives in memory"},
        ExplainCase{"MsyncOfPrivate", [](MemoryLab& l) { l.processes->Msync(l.pid, At(0), kPage, 4); }, "nothing is written"},
        ExplainCase{"Mincore", [](MemoryLab& l) { (void)l.processes->Mincore(l.pid, At(0), 4 * kPage).ok(); },
                    "page-table entry or the page cache"},
        ExplainCase{"Names", [](MemoryLab& l) { l.processes->SetVmaName(l.pid, At(0), kPage, "n"); }, "CONFIG_ANON_VMA_NAME"}),
    [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Faults, ExplainTest,
    testing::Values(ExplainCase{"NoFault", [](MemoryLab& l) { Access(l, AccessKind::kLoad, 0); }, "there is no fault"},
                    ExplainCase{"ZeroPage", [](MemoryLab& l) { Access(l, AccessKind::kLoad, 1); }, "the zero page is mapped"},
                    ExplainCase{"FirstWrite", [](MemoryLab& l) { Access(l, AccessKind::kStore, 1); }, "a zeroed frame is mapped"},
                    ExplainCase{"WriteAfterRead",
                                [](MemoryLab& l) {
                                  Access(l, AccessKind::kLoad, 1);
                                  Access(l, AccessKind::kStore, 1);
                                },
                                "a frame of its own replaces it"},
                    ExplainCase{"CopiedAfterFork",
                                [](MemoryLab& l) {
                                  (void)l.processes->Fork(l.pid, 0).ok();
                                  Access(l, AccessKind::kStore, 0);
                                },
                                "somebody else holds the anonymous page: it is copied"},
                    ExplainCase{"ReusedAfterTheChildsEnd",
                                [](MemoryLab& l) {
                                  l.processes->Exit(l.processes->Fork(l.pid, 0).value(), 0);
                                  Access(l, AccessKind::kStore, 0);
                                },
                                "it is used again"},
                    ExplainCase{"FilesPage", [](MemoryLab& l) { Access(l, AccessKind::kLoad, 6); }, "mapped around the fault"},
                    ExplainCase{"NoVma", [](MemoryLab& l) { Access(l, AccessKind::kLoad, 20); }, "no VMA holds the address"},
                    ExplainCase{"NotWritable", [](MemoryLab& l) { Access(l, AccessKind::kStore, 8); }, "vm_flags do not allow the access"}),
    [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Others, ExplainTest,
    testing::Values(
        ExplainCase{"Create", [](MemoryLab& l) { (void)l.processes->Create("p", 0, true).ok(); }, "a kernel thread"},
        ExplainCase{"Fork", [](MemoryLab& l) { (void)l.processes->Fork(l.pid, 0).ok(); }, "copy-on-write"},
        ExplainCase{"ForkOfFilesMemory", [](MemoryLab& l) { (void)l.processes->Fork(l.pid, 0).ok(); }, "faults bring the pages back"},
        ExplainCase{"Vfork", [](MemoryLab& l) { (void)l.processes->Fork(l.pid, 0x4100).ok(); }, "the parent waits"},
        ExplainCase{"ForkRefused", [](MemoryLab& l) { (void)l.processes->Fork(l.pid, 0x10000).ok(); }, "do not go together"},
        ExplainCase{"Exit", [](MemoryLab& l) { l.processes->Exit(l.pid, 0); }, "the process ends"},
        ExplainCase{"Switch", [](MemoryLab& l) { (void)l.processes->SwitchTo(l.pid, 0).ok(); }, "CR3 is loaded"},
        ExplainCase{"SwitchRefused", [](MemoryLab& l) { (void)l.processes->SwitchTo(l.processes->Create("k", 0, true).value(), 1).ok(); },
                    "none was loaded"},
        ExplainCase{"Limit", [](MemoryLab& l) { l.processes->Setrlimit(l.pid, 9, 4096, 4096); }, "the limit is changed"},
        ExplainCase{"LimitRefused", [](MemoryLab& l) { l.processes->Setrlimit(l.pid, 9, 2, 1); }, "above the hard one"},
        ExplainCase{"OomScoreAdj", [](MemoryLab& l) { l.processes->WriteOomScoreAdj(l.pid, 5); }, "a thousandth of RAM"},
        ExplainCase{"Prctl", [](MemoryLab& l) { (void)l.processes->Prctl(l.pid, 4, 0, 0, 0, 0).ok(); }, "was carried out"},
        ExplainCase{"PrctlRefused", [](MemoryLab& l) { (void)l.processes->Prctl(l.pid, 4, 7, 0, 0, 0).ok(); }, "takes 0 or 1"},
        ExplainCase{"Open", [](MemoryLab& l) { (void)l.processes->Open(l.pid, "/tmpfs", 2, -1).ok(); }, "the lowest free descriptor"},
        ExplainCase{"OpenRefused", [](MemoryLab& l) { (void)l.processes->Open(l.pid, "/none", 2, -1).ok(); }, "no such file"},
        ExplainCase{"Pipe", [](MemoryLab& l) { (void)l.processes->Pipe(l.pid, 20).ok(); }, "was asked for"},
        ExplainCase{"Close", [](MemoryLab& l) { l.processes->Close(l.pid, 10); }, "mappings of the file stay"},
        ExplainCase{"CloseRefused", [](MemoryLab& l) { l.processes->Close(l.pid, 99); }, "not an open descriptor"},
        ExplainCase{"Memfd", [](MemoryLab& l) { (void)l.processes->MemfdCreate(l.pid, "m", 0).ok(); }, "the lowest free descriptor"},
        ExplainCase{"Ftruncate", [](MemoryLab& l) { l.processes->Ftruncate(l.pid, 10, kPage); }, "out of every page table"},
        ExplainCase{"Pread", [](MemoryLab& l) { (void)l.processes->Pread(l.pid, 10, At(0), kPage, 0).ok(); }, "to memory"},
        ExplainCase{"PreadRefused", [](MemoryLab& l) { (void)l.processes->Pread(l.pid, 10, At(20), kPage, 0).ok(); }, "not one byte"},
        ExplainCase{"Pwrite", [](MemoryLab& l) { (void)l.processes->Pwrite(l.pid, 10, At(0), kPage, 0).ok(); }, "to the page cache"},
        ExplainCase{"Shmget", [](MemoryLab& l) { (void)l.processes->Shmget(l.pid, 0, kPage, 0x380).ok(); }, "a new segment"},
        ExplainCase{"ShmatRefused", [](MemoryLab& l) { (void)l.processes->Shmat(l.pid, 99, 0, 0).ok(); }, "no such segment"},
        ExplainCase{"ShmdtRefused", [](MemoryLab& l) { l.processes->Shmdt(l.pid, At(0)); }, "no part of a segment"},
        ExplainCase{
            "ShmRemove",
            [](MemoryLab& l) { l.processes->ShmRemove(l.pid, static_cast<int32_t>(l.processes->Shmget(l.pid, 0, kPage, 0x380).value())); },
            "it goes now"},
        ExplainCase{"ExecRefused",
                    [](MemoryLab& l) {
                      ElfImage image;
                      image.path = "/program";
                      (void)l.processes->Exec(l.pid, image, nullptr, {}, {}).ok();
                    },
                    "no PT_LOAD segment"}),
    [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace mmlab
