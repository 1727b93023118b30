#ifndef MMLAB_TESTS_UNIT_PROCESS_MEMORY_LAB_H_
#define MMLAB_TESTS_UNIT_PROCESS_MEMORY_LAB_H_

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/arch/layout.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/test_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {

inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kBase = 0x40000000;  // Where tests map; free on every layout.
inline constexpr uint32_t kPrivateAnon = 0x22;
inline constexpr uint32_t kSharedAnon = 0x21;
inline constexpr uint32_t kFixed = 0x10;

// A small machine of any layout with one process, the files "/tmpfs" and "/ext4" of 20 pages each at descriptors 10 and 11.
class MemoryLab {
 public:
  explicit MemoryLab(LayoutKind layout, bool hardware_access_flag = true, uint32_t pages = 8192)
      : layout_kind(layout), memory(MakeTestMemory(pages, tracer)), files(*memory, vm_stat, tracer) {
    processes = std::make_unique<Processes>(GetLayout(layout), *memory, files, vm_stat, tracer, hardware_access_flag, 1);
    processes->limits().total_ram = PageCount(pages);
    processes->limits().overcommit_memory = 1;
    EXPECT_TRUE(files.CreateFile("/program", FileKind::kExt4, kPage, "", true).ok());
    EXPECT_TRUE(files.CreateFile("/tmpfs", FileKind::kTmpfs, 20 * kPage, std::string(20 * kPage, 't'), true).ok());
    EXPECT_TRUE(files.CreateFile("/ext4", FileKind::kExt4, 20 * kPage, std::string(20 * kPage, 'e'), true).ok());
    ElfImage image;
    image.path = "/program";
    image.entry = 0x8048000;
    image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x8048000, kPage, kPage, 5, kPage},
                             {ProgramHeader::Type::kGnuStack, 0, 0, 0, 0, 6, 16}};
    pid = processes->Create("lab", 1000, false).value();
    EXPECT_TRUE(processes->Exec(pid, image, nullptr, {"lab"}, {}).ok());
    EXPECT_TRUE(processes->Open(pid, "/tmpfs", 2, 10).ok());
    EXPECT_TRUE(processes->Open(pid, "/ext4", 2, 11).ok());
  }

  // `fd` -1: anonymous. Pages from kBase.
  void Map(Pid who, uint64_t page, uint64_t pages, uint32_t prot, uint32_t flags, int32_t fd = -1, uint64_t offset_pages = 0) {
    EXPECT_TRUE(processes->Mmap(who, At(page), pages * kPage, prot, flags | kFixed, fd, offset_pages * kPage).ok());
  }
  // One access of a byte; the value of a load.
  uint8_t Access(Pid who, AccessKind kind, uint64_t page, uint8_t value = 1) {
    AccessRequest request;
    request.kind = kind;
    request.address = At(page);
    request.length = 1;
    request.value = value;
    std::string data;
    result = AccessResult();
    signal.reset();
    EXPECT_EQ(processes->Access(who, request, result, signal, data), Errno::kOk);
    return static_cast<uint8_t>(result.value);
  }
  std::vector<std::string> Violations() const {
    std::vector<std::string> violations;
    processes->CheckInvariants(&violations);
    files.CheckInvariants(&violations);
    return violations;
  }
  static uint64_t At(uint64_t page) { return kBase + page * kPage; }
  int word() const { return GetLayout(layout_kind).word_bytes; }
  const Process& process(Pid who) const { return *processes->Find(who); }

  const LayoutKind layout_kind;
  Tracer tracer;
  VmStat vm_stat;
  std::unique_ptr<BuddyMemory> memory;
  Files files;
  std::unique_ptr<Processes> processes;
  Pid pid;
  AccessResult result;           // Of the last access.
  std::optional<Signal> signal;  // Of the last access.
};

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_PROCESS_MEMORY_LAB_H_
