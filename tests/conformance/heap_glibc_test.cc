// Why the heap is larger than what sbrk() was asked for: a program of the C library on machines like those on which it was recorded, and
// what its malloc does, call by call. README.md beside this file tells the story.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/arch/layout.h"
#include "server/files/files.h"
#include "server/physical/test_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMib = 1 << 20;
constexpr uint64_t kKib = 1 << 10;

uint64_t AlignUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

// A line of a recorded /proc/self/maps.
struct MapsLine {
  uint64_t start = 0, end = 0;
  std::string permissions;
  uint64_t offset = 0;
  std::string name;
};

struct Snapshot {
  std::string title;  // "after sbrk(1 MiB), before any malloc".
  std::vector<MapsLine> lines;
};

std::vector<Snapshot> ReadRecording(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  std::vector<Snapshot> snapshots;
  for (std::string text; std::getline(in, text);) {
    if (absl::StartsWith(text, "== ")) {
      snapshots.push_back({text.substr(3), {}});
      continue;
    }
    const std::vector<std::string> words = absl::StrSplit(text, ' ', absl::SkipEmpty());
    const std::vector<std::string> range = absl::StrSplit(words[0], '-');
    MapsLine line;
    if (range.size() != 2 || words.size() < 5) continue;  // What the program prints itself.
    EXPECT_TRUE(absl::SimpleHexAtoi(range[0], &line.start) && absl::SimpleHexAtoi(range[1], &line.end));
    EXPECT_TRUE(absl::SimpleHexAtoi(words[2], &line.offset));
    line.permissions = words[1];
    if (words.size() > 5) line.name = words[5];
    snapshots.back().lines.push_back(line);
  }
  return snapshots;
}

std::string ShowHeap(const std::vector<MapsLine>& lines) {
  std::string text;
  for (const MapsLine& line : lines) {
    if (line.name == "[heap]") absl::StrAppend(&text, absl::Hex(line.start), "-", absl::Hex(line.end), " ");
  }
  return text;
}

// The part of glibc 2.36's malloc that decides when the break moves: the top chunk, from which everything here is cut (sysmalloc()).
class Malloc {
 public:
  Malloc(Processes& processes, Pid pid, uint64_t word) : processes_(processes), pid_(pid), word_(word) {}

  // The address of a mapping of its own; 0: from the heap.
  uint64_t Allocate(uint64_t bytes) {
    if (top_ == 0 && !started_) {
      started_ = true;
      Allocate(word_ == 8 ? 0x280 : 0x180);  // tcache_init(): the first call of malloc() needs a little for itself.
    }
    const uint64_t chunk = std::max(AlignUp(bytes + word_, kAlignment), 2 * kAlignment);
    if (top_size_ < chunk + MinSize()) {
      if (chunk >= kMmapThreshold) return processes_.Mmap(pid_, 0, AlignUp(chunk + word_, kPage), 3, 0x22, -1, 0).value();
      Extend(chunk);
    }
    top_ += chunk;
    top_size_ -= chunk;
    return 0;
  }

 private:
  static constexpr uint64_t kAlignment = 16;              // MALLOC_ALIGNMENT, on i386 too.
  static constexpr uint64_t kMmapThreshold = 128 * kKib;  // DEFAULT_MMAP_THRESHOLD
  static constexpr uint64_t kTopPad = 128 * kKib;  // DEFAULT_TOP_PAD: asked for in advance, so that not every call goes to the kernel.
  uint64_t MinSize() const { return 4 * word_; }

  // A larger top: the request, the padding, the smallest chunk, less what is left.
  void Extend(uint64_t chunk) {
    const uint64_t size = AlignUp(chunk + kTopPad + MinSize() - top_size_, kPage);
    const uint64_t brk = processes_.Sbrk(pid_, static_cast<int64_t>(size)).value();
    if (top_ != 0 && brk == top_ + top_size_) {
      top_size_ += size;
      return;
    }
    // New ground, because it is the first or somebody else moved the break: memory behind the chunk's header of two words must be aligned,
    // what was left over is asked for anew, and the end must lie at the end of a page again: a second call.
    const uint64_t front = (brk + 2 * word_) % kAlignment;
    const uint64_t shift = front == 0 ? 0 : kAlignment - front;
    const uint64_t more = AlignUp(brk + size + shift + top_size_, kPage) - (brk + size);
    EXPECT_TRUE(processes_.Sbrk(pid_, static_cast<int64_t>(more)).ok());
    top_ = brk + shift;
    top_size_ = size + more - shift;
  }

  Processes& processes_;
  const Pid pid_;
  const uint64_t word_;
  bool started_ = false;
  uint64_t top_ = 0;
  uint64_t top_size_ = 0;
};

struct HeapCase {
  const char* name;  // Of the recording.
  LayoutKind layout;
  bool dynamic;
  uint64_t first_growth;  // By how much the heap is larger than 0x100000 after the first malloc; dynamic programs.
};

class HeapGlibcTest : public testing::TestWithParam<HeapCase> {
 protected:
  void SetUp() override {
    recording_ = ReadRecording(absl::StrCat("tests/conformance/data/heap-glibc/", GetParam().name, ".txt"));
    ASSERT_EQ(recording_.size(), 9u);
    memory_ = MakeTestMemory(8192, tracer_);
    files_ = std::make_unique<Files>(*memory_, vm_stat_, tracer_);
    processes_ = std::make_unique<Processes>(GetLayout(GetParam().layout), *memory_, *files_, vm_stat_, tracer_, true, 1);
    processes_->limits().total_ram = PageCount(8192);
    pid_ = processes_->Create("heap", 1000, false).value();
    const std::vector<MapsLine>& start = recording_[0].lines;
    const std::string program = start[0].name;
    const ElfImage image = ImageOf(program, false);
    if (GetParam().dynamic) {
      const ElfImage interpreter = ImageOf("/e/ld.so", true);
      ASSERT_TRUE(processes_->Exec(pid_, image, &interpreter, {"heap"}, {}).ok());
      exec_lines_ = Lines();
      MapLibraries();
    } else {
      ASSERT_TRUE(processes_->Exec(pid_, image, nullptr, {"heap"}, {}).ok());
      exec_lines_ = Lines();
    }
  }

  // An ELF file whose segments are the VMAs that were recorded of it; memory behind the last one, up to the heap, is its .bss.
  ElfImage ImageOf(const std::string& path, bool position_independent) {
    ElfImage image;
    image.path = path;
    image.position_independent = position_independent;
    uint64_t first = 0;
    for (const MapsLine& line : recording_[0].lines) {
      if (!image.program_headers.empty() && line.name == "[heap]" && line.start == first + LastEnd(image)) {
        image.program_headers.back().memsz += line.end - line.start;
        break;
      }
      if (line.name != path) continue;
      if (image.program_headers.empty()) first = position_independent ? line.start : 0;
      const uint32_t flags =
          (line.permissions[0] == 'r' ? 4u : 0u) | (line.permissions[1] == 'w' ? 2u : 0u) | (line.permissions[2] == 'x' ? 1u : 0u);
      const uint64_t size = line.end - line.start;
      image.program_headers.push_back({ProgramHeader::Type::kLoad, line.offset, line.start - first, size, size, flags, kPage});
    }
    image.program_headers.push_back({ProgramHeader::Type::kGnuStack, 0, 0, 0, 0, 6, 16});
    EXPECT_TRUE(files_->CreateFile(path, FileKind::kExt4, 2 * kMib, "", true).ok());
    return image;
  }
  static uint64_t LastEnd(const ElfImage& image) { return image.program_headers.back().vaddr + image.program_headers.back().memsz; }

  // What the dynamic linker maps before main() begins: the C library, memory of its own.
  void MapLibraries() {
    ASSERT_TRUE(files_->CreateFile("/e/libc.so.6", FileKind::kExt4, 3 * kMib, "", true).ok());
    ASSERT_TRUE(processes_->Open(pid_, "/e/libc.so.6", 0, 3).ok());
    for (const MapsLine& line : recording_[0].lines) {
      const bool library = line.name == "/e/libc.so.6";
      if (!library && !line.name.empty()) continue;
      const uint32_t prot =
          (line.permissions[0] == 'r' ? 1u : 0u) | (line.permissions[1] == 'w' ? 2u : 0u) | (line.permissions[2] == 'x' ? 4u : 0u);
      ASSERT_TRUE(
          processes_->Mmap(pid_, line.start, line.end - line.start, prot, library ? 0x12 : 0x32, library ? 3 : -1, line.offset).ok());
    }
  }

  std::vector<MapsLine> Lines() const {
    std::vector<MapsLine> lines;
    for (const VmAreaView& vma : processes_->VmAreas(*processes_->Find(pid_))) {
      lines.push_back({vma.start.raw(), vma.end.raw(), vma.permissions, vma.offset.raw(), vma.backing});
    }
    return lines;
  }
  void ExpectHeapOf(size_t snapshot) { EXPECT_EQ(ShowHeap(Lines()), ShowHeap(recording_[snapshot].lines)) << recording_[snapshot].title; }

  std::vector<Snapshot> recording_;
  std::vector<MapsLine> exec_lines_;
  Tracer tracer_;
  VmStat vm_stat_;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<Files> files_;
  std::unique_ptr<Processes> processes_;
  Pid pid_;
};

// exec alone puts program, interpreter, clock pages, vdso and stack where they were.
TEST_P(HeapGlibcTest, ExecPutsEverythingWhereLinuxDid) {
  for (const MapsLine& line : recording_[0].lines) {
    if (line.name.empty() || line.name == "/e/libc.so.6" || line.name == "[heap]") continue;
    const auto same = [&](const MapsLine& ours) {
      return ours.start == line.start && ours.end == line.end && ours.permissions == line.permissions && ours.offset == line.offset &&
             ours.name == line.name;
    };
    EXPECT_TRUE(std::any_of(exec_lines_.begin(), exec_lines_.end(), same)) << std::hex << line.start << " " << line.name;
  }
}

TEST_P(HeapGlibcTest, TheHeapGrowsAsRecorded) {
  Malloc malloc(*processes_, pid_, static_cast<uint64_t>(GetLayout(GetParam().layout).word_bytes));
  constexpr uint64_t kBuffer = 4 * kKib;     // Of stdout, which was a file.
  constexpr int64_t kThreadBlock = 0x900;    // About what the first thread's own variables take.
  constexpr uint64_t kStartUpRequest = 100;  // Of any size: it is the first.
  if (!GetParam().dynamic) {
    // The start-up code of a static program moves the break for the first thread, and has used malloc before main().
    ASSERT_TRUE(processes_->Sbrk(pid_, kThreadBlock).ok());
    malloc.Allocate(kStartUpRequest);
  }
  ExpectHeapOf(0);
  const uint64_t before = processes_->Sbrk(pid_, 0).value();
  ASSERT_EQ(processes_->Sbrk(pid_, kMib).value(), before);
  ExpectHeapOf(1);
  malloc.Allocate(kBuffer);  // The first printf.
  ExpectHeapOf(2);
  EXPECT_EQ(processes_->Sbrk(pid_, 0).value() - before, kMib + GetParam().first_growth);
  malloc.Allocate(100);
  ExpectHeapOf(3);
  // Too large for what is left, and as large as the threshold: a mapping of its own, which goes when it is freed.
  const uint64_t mapping = malloc.Allocate(200 * kKib);
  const std::vector<MapsLine>& recorded = recording_[4].lines;
  EXPECT_TRUE(std::any_of(recorded.begin(), recorded.end(), [&](const MapsLine& line) { return line.start == mapping; }))
      << std::hex << mapping;
  ExpectHeapOf(4);
  ASSERT_EQ(processes_->Munmap(pid_, mapping, 0x33000), Errno::kOk);
  ExpectHeapOf(5);
  malloc.Allocate(120 * kKib);
  malloc.Allocate(120 * kKib);
  ExpectHeapOf(6);
  ExpectHeapOf(7);  // What is freed at the top stays: below the threshold, which the freed mapping has raised to twice its size.
  ASSERT_TRUE(processes_->Sbrk(pid_, -static_cast<int64_t>(kMib)).ok());
  ExpectHeapOf(8);
}

INSTANTIATE_TEST_SUITE_P(Recordings, HeapGlibcTest,
                         testing::Values(HeapCase{"686-dynamic", LayoutKind::kX86_32, true, 0x22000},
                                         HeapCase{"686-pae-dynamic", LayoutKind::kX86_32Pae, true, 0x22000},
                                         HeapCase{"arm64-dynamic", LayoutKind::kArm64, true, 0x21000},
                                         HeapCase{"686-static", LayoutKind::kX86_32, false, 0},
                                         HeapCase{"686-pae-static", LayoutKind::kX86_32Pae, false, 0},
                                         HeapCase{"arm64-static", LayoutKind::kArm64, false, 0}),
                         [](const auto& c) {
                           std::string name = c.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace mmlab
