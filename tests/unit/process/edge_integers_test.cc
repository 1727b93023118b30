#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/process/memory_lab.h"

// Every argument of every call gets the integers at which sums wrap and comparisons turn: an errno or a result, never a crash, never a
// counter that disagrees.

namespace mmlab {
namespace {

constexpr uint64_t kMask = 0xfffff;  // Bounds lengths whose cost follows what is mapped.

std::vector<uint64_t> Edges() {
  std::vector<uint64_t> edges = {0, 1, kPage - 1, kPage, kPage + 1};
  for (const VirtAddr top : {GetLayout(LayoutKind::kX86_32).task_size, GetLayout(LayoutKind::kArm64).task_size}) {
    for (const uint64_t below : {uint64_t{0}, uint64_t{1}, kPage, 2 * kPage}) edges.push_back(top.raw() - below);
  }
  for (int bit = 13; bit < 64; ++bit) {
    for (const int delta : {-1, 0, 1}) edges.push_back((uint64_t{1} << bit) + static_cast<uint64_t>(delta));
  }
  for (const uint64_t top : {uint64_t{0xffffffff}, ~uint64_t{0}}) {
    for (const uint64_t below : {uint64_t{0}, kPage - 1, kPage}) edges.push_back(top - below);
  }
  return edges;
}

// Some of them, and addresses at which something is mapped: each is paired with every edge, in both places.
std::vector<uint64_t> Partners() {
  return {0,
          1,
          kPage,
          kPage + 1,
          MemoryLab::At(2),
          MemoryLab::At(33) + 5,
          0xbffff000,
          0xfffff000,
          (uint64_t{1} << 48) - kPage,
          uint64_t{1} << 63,
          ~uint64_t{0} - kPage + 1,
          ~uint64_t{0}};
}

struct EdgeCase {
  const char* name;
  void (*call)(MemoryLab& lab, uint64_t a, uint64_t b);
};

void Access(MemoryLab& lab, AccessKind kind, uint64_t address, uint64_t length, uint64_t stride) {
  AccessRequest request;
  request.kind = kind;
  request.address = address;
  request.length = length;
  request.stride = stride;
  if (kind == AccessKind::kWriteBytes) request.data = std::string(length, 'x');
  AccessResult result;
  std::optional<Signal> signal;
  std::string data;
  lab.processes->Access(lab.pid, request, result, signal, data);
}

const EdgeCase kCases[] = {
    {"MmapHint", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Mmap(l.pid, a, b, 3, kPrivateAnon, -1, 0).ok(); }},
    {"MmapFixed",
     [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Mmap(l.pid, a, b, 3, kPrivateAnon | 0x100000, -1, 0).ok(); }},
    {"MmapFile", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Mmap(l.pid, 0, a, 3, 1, b % 2 == 0 ? 10 : 11, b).ok(); }},
    {"MmapFlags",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       (void)l.processes->Mmap(l.pid, 0, kPage, static_cast<uint32_t>(a), static_cast<uint32_t>(b), -1, 0).ok();
     }},
    {"MmapGrowsDown",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       (void)l.processes->Mmap(l.pid, a, b & kMask, 3, kPrivateAnon | 0x100100, -1, 0).ok();
       Access(l, AccessKind::kStore, a - kPage, 8, 0);
     }},
    {"Munmap", [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Munmap(l.pid, a, b); }},
    {"Mprotect", [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Mprotect(l.pid, a, b, 1); }},
    {"MprotectBits",
     [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Mprotect(l.pid, MemoryLab::At(1), kPage, static_cast<uint32_t>(a ^ b)); }},
    {"MremapGrow", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Mremap(l.pid, MemoryLab::At(2), a, b, 1, 0).ok(); }},
    {"MremapFixed", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Mremap(l.pid, MemoryLab::At(4), kPage, a, 3, b).ok(); }},
    {"MremapOld", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Mremap(l.pid, a, b, b, 5, MemoryLab::At(5000)).ok(); }},
    {"MremapDuplicate", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Mremap(l.pid, MemoryLab::At(17), 0, a, 1, b).ok(); }},
    {"Brk", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)(l.processes->Brk(l.pid, a).ok() && l.processes->Brk(l.pid, b).ok()); }},
    {"Sbrk", [](MemoryLab& l, uint64_t a, uint64_t) { (void)l.processes->Sbrk(l.pid, static_cast<int64_t>(a)).ok(); }},
    {"Madvise",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       for (const int32_t advice : {0, 4, 8, 9, 10, 18, 20, 21}) l.processes->Madvise(l.pid, a, b, advice);
     }},
    {"MadvisePopulate", [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Madvise(l.pid, a, b & kMask, 23); }},
    {"MadviseAdvice",
     [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Madvise(l.pid, MemoryLab::At(0), b, static_cast<int32_t>(a)); }},
    {"Mlock", [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Mlock(l.pid, a, b, 1); }},
    {"MlockNow", [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Mlock(l.pid, a, b & kMask, static_cast<uint32_t>(b >> 32)); }},
    {"Munlock", [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Munlock(l.pid, a, b); }},
    {"Mlockall",
     [](MemoryLab& l, uint64_t a, uint64_t) {
       l.processes->Mlockall(l.pid, static_cast<uint32_t>(a));
       l.processes->Munlockall(l.pid);
     }},
    {"Msync", [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->Msync(l.pid, a, b, static_cast<uint32_t>(a) & 7); }},
    {"Mincore", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Mincore(l.pid, a, b & kMask).ok(); }},
    {"SetVmaName", [](MemoryLab& l, uint64_t a, uint64_t b) { l.processes->SetVmaName(l.pid, a, b, "name"); }},
    {"PrctlOption",
     [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Prctl(l.pid, static_cast<int32_t>(a), b, b, b, b).ok(); }},
    {"PrctlName",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       (void)l.processes->Prctl(l.pid, 15, a, b, 0, 0).ok();
       (void)l.processes->Prctl(l.pid, 16, b, a, 0, 0).ok();
     }},
    {"PrctlMap",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       (void)l.processes->Prctl(l.pid, 35, 14, a, l.word() == 8 ? 104 : 100, 0).ok();
       (void)l.processes->Prctl(l.pid, 35, 15, b, 0, 0).ok();
     }},
    {"Load", [](MemoryLab& l, uint64_t a, uint64_t b) { Access(l, AccessKind::kLoad, a, b, 0); }},
    {"Touch",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       Access(l, AccessKind::kTouchRead, a, kMask, b | kPage);
       Access(l, AccessKind::kTouchWrite, b, 8 * kPage, a | kPage);
     }},
    {"Bytes",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       Access(l, AccessKind::kHash, a, b & 0xffff, 0);
       Access(l, AccessKind::kWriteBytes, b, a & 0xffff, 0);
       Access(l, AccessKind::kExecute, a, 1, 0);
     }},
    {"Ftruncate",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       l.processes->Ftruncate(l.pid, 10, a);
       l.processes->Ftruncate(l.pid, static_cast<int32_t>(b), a);
       l.processes->Ftruncate(l.pid, 10, 20 * kPage);
     }},
    {"Pread", [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Pread(l.pid, 10, a, b, a ^ b).ok(); }},
    {"Pwrite",
     [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Pwrite(l.pid, 10, MemoryLab::At(1), a & 0xffff, b & kMask).ok(); }},
    {"PwriteOffset",
     [](MemoryLab& l, uint64_t a, uint64_t b) { (void)l.processes->Pwrite(l.pid, 11, b, a | (uint64_t{1} << 40), a).ok(); }},
    {"Shmget",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       const auto id = l.processes->Shmget(l.pid, static_cast<int32_t>(b), a, 0x380 | (static_cast<uint32_t>(b >> 13) & 0x1800));
       if (id.ok()) l.processes->ShmRemove(l.pid, static_cast<int32_t>(id.value()));
     }},
    {"Shmat",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       const auto id = l.processes->Shmget(l.pid, 0, 3 * kPage + 1, 0x380);
       ASSERT_TRUE(id.ok());
       const auto at = l.processes->Shmat(l.pid, static_cast<int32_t>(id.value()), a, static_cast<uint32_t>(b));
       l.processes->Shmdt(l.pid, b);
       if (at.ok()) l.processes->Shmdt(l.pid, at.value());
       l.processes->ShmRemove(l.pid, static_cast<int32_t>(id.value()));
       l.processes->ShmRemove(l.pid, static_cast<int32_t>(a));
     }},
    {"Fork",
     [](MemoryLab& l, uint64_t a, uint64_t) {
       const auto child = l.processes->Fork(l.pid, a & ~uint64_t{0x4000});
       if (child.ok()) l.processes->Exit(child.value(), static_cast<int32_t>(a));
     }},
    {"OomScoreAdj", [](MemoryLab& l, uint64_t a, uint64_t) { l.processes->WriteOomScoreAdj(l.pid, static_cast<int64_t>(a)); }},
    {"Files",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       const auto fd = l.processes->Open(l.pid, "/tmpfs", static_cast<uint32_t>(a), static_cast<int32_t>(b));
       if (fd.ok() && fd.value() != 10 && fd.value() != 11) l.processes->Close(l.pid, static_cast<int32_t>(fd.value()));
       const auto memfd = l.processes->MemfdCreate(l.pid, "m", static_cast<uint32_t>(a));
       if (memfd.ok()) l.processes->Close(l.pid, static_cast<int32_t>(memfd.value()));
     }},
    {"Setrlimit",
     [](MemoryLab& l, uint64_t a, uint64_t b) {
       l.processes->Setrlimit(l.pid, static_cast<uint32_t>(a), b, ~uint64_t{0});
       l.processes->Setrlimit(l.pid, 9, a, ~uint64_t{0});
       (void)l.processes->Mmap(l.pid, 0, kPage, 3, kPrivateAnon, -1, 0).ok();
       l.processes->Setrlimit(l.pid, 9, ~uint64_t{0}, ~uint64_t{0});
     }},
};

class EdgeIntegersTest : public testing::TestWithParam<LayoutKind> {};

// Memory as it is before each pair: private and shared anonymous pages, a file's, some locked, some touched.
void Furnish(MemoryLab& lab) {
  lab.processes->Munmap(lab.pid, MemoryLab::At(0), 6000 * kPage);
  lab.Map(lab.pid, 0, 16, 3, kPrivateAnon);
  lab.Map(lab.pid, 16, 8, 3, kSharedAnon);
  lab.Map(lab.pid, 32, 8, 3, 2, 10);
  lab.Access(lab.pid, AccessKind::kStore, 2);
  lab.Access(lab.pid, AccessKind::kStore, 17);
  lab.processes->Mlock(lab.pid, MemoryLab::At(5), kPage, 0);
}

TEST_P(EdgeIntegersTest, NothingBreaks) {
  const std::vector<uint64_t> edges = Edges();
  const std::vector<uint64_t> partners = Partners();
  for (const EdgeCase& c : kCases) {
    MemoryLab lab(GetParam());
    lab.processes->limits().shmmax = lab.processes->limits().shmall = ~uint64_t{0};
    lab.processes->limits().anon_vma_name = true;
    for (const uint64_t edge : edges) {
      Furnish(lab);
      for (const uint64_t partner : partners) {
        c.call(lab, edge, partner);
        c.call(lab, partner, edge);
        const std::vector<std::string> violations = lab.Violations();
        ASSERT_TRUE(violations.empty()) << c.name << std::hex << " 0x" << edge << " with 0x" << partner << ": " << violations[0];
      }
    }
    ASSERT_EQ(lab.processes->Exit(lab.pid, 0), Errno::kOk);
    ASSERT_EQ(lab.Violations(), std::vector<std::string>()) << c.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, EdgeIntegersTest, testing::Values(LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64),
                         [](const auto& c) { return std::string(GetLayout(c.param).name); });

}  // namespace
}  // namespace mmlab
