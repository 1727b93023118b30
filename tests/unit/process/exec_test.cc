#include <gtest/gtest.h>

#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/random.h"
#include "server/process/address_space.h"
#include "server/process/exec_layout.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

using Type = ProgramHeader::Type;

// A machine with one process without an image, and files "/program" and "/ld.so" of 16 pages.
class ExecLab {
 public:
  explicit ExecLab(const Layout& layout) : memory(MakeTestMemory(8192, tracer)), files(*memory, vm_stat, tracer) {
    processes = std::make_unique<Processes>(layout, *memory, files, vm_stat, tracer, true, 1);
    processes->limits().total_ram = PageCount(8192);
    processes->limits().overcommit_memory = 1;
    for (const char* path : {"/program", "/ld.so"}) EXPECT_TRUE(files.CreateFile(path, FileKind::kExt4, 16 * kPage, "", true).ok());
    pid = processes->Create("lab", 1000, false).value();
  }
  Errno Exec(const ElfImage& image, const ElfImage* interpreter = nullptr) {
    return processes->Exec(pid, image, interpreter, {"lab"}, {"HOME=/"}).error();
  }
  // "400000 program r-x": the lines of maps, without what has no name, files by their names.
  std::vector<std::string> Maps() const {
    std::vector<std::string> lines;
    for (const VmAreaView& area : processes->VmAreas(*processes->Find(pid))) {
      if (!area.backing.empty()) lines.push_back(absl::StrCat(absl::Hex(area.start.raw()), " ", area.backing, " ", area.permissions));
    }
    return lines;
  }
  const AddressSpace& mm() const { return *processes->Find(pid)->mm; }
  std::vector<std::string> Violations() const {
    std::vector<std::string> violations;
    processes->CheckInvariants(&violations);
    files.CheckInvariants(&violations);
    return violations;
  }

  Tracer tracer;
  VmStat vm_stat;
  std::unique_ptr<BuddyMemory> memory;
  Files files;
  std::unique_ptr<Processes> processes;
  Pid pid;
};

ElfImage Image(const char* path, bool position_independent, std::vector<ProgramHeader> headers) {
  ElfImage image;
  image.path = path;
  image.entry = 0x100;
  image.position_independent = position_independent;
  image.program_headers = std::move(headers);
  image.program_headers.push_back({Type::kGnuStack, 0, 0, 0, 0, 6, 16});
  return image;
}
ElfImage Pie(uint64_t align) {
  return Image("/program", true,
               {{Type::kLoad, 0, 0, kPage, kPage, 5, align}, {Type::kLoad, kPage, 0x10000 + kPage, kPage, 3 * kPage, 6, align}});
}
ElfImage Interpreter() {
  return Image("/ld.so", true,
               {{Type::kLoad, 0, 0, 2 * kPage, 2 * kPage, 5, kPage}, {Type::kLoad, 2 * kPage, 3 * kPage, kPage, kPage, 6, kPage}});
}

TEST(ExecLayoutTest, ProgramAndInterpreterGoWhereLinuxPutsThem) {
  ExecLab lab(GetLayout(LayoutKind::kX86_32));
  const ElfImage interpreter = Interpreter();
  ASSERT_EQ(lab.Exec(Pie(kPage), &interpreter), Errno::kOk);
  // mmap_base is 0xb8000000: below it first the interpreter, then vvar and vdso. What .bss takes beyond the file ends where the heap
  // begins, and so bears its name.
  EXPECT_EQ(lab.Maps(),
            (std::vector<std::string>{"400000 /program r-xp", "411000 /program rw-p", "412000 [heap] rw-p", "b7ff6000 [vvar] r--p",
                                      "b7ffa000 [vdso] r-xp", "b7ffc000 /ld.so r-xp", "b7fff000 /ld.so rw-p", "bffdf000 [stack] rw-p"}));
  EXPECT_EQ(lab.mm().start_brk, VirtAddr(0x414000));
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}

TEST(ExecLayoutTest, ALoaderByItselfLiesInTheMmapAreaAndItsHeapElsewhere) {
  ExecLab lab(GetLayout(LayoutKind::kArm64));
  ElfImage loader = Pie(0x10000);
  ASSERT_EQ(lab.Exec(loader), Errno::kOk);
  EXPECT_EQ(lab.mm().start_code.raw() % 0x10000, 0u) << "p_align is honoured";
  EXPECT_GT(lab.mm().start_code.raw(), lab.mm().mmap_base.raw() - 0x100000);
  EXPECT_EQ(lab.mm().start_brk.raw(), (2 * (uint64_t{1} << 48) / 3 + kPage - 1) & ~(kPage - 1));
}

TEST(ExecLayoutTest, FollowsTheSizeOfUserSpace) {
  Layout small = GetLayout(LayoutKind::kArm64);  // CONFIG_ARM64_VA_BITS=39
  small.task_size = small.stack_top = VirtAddr(uint64_t{1} << 39);
  const ExecLayout exec = ExecLayoutOf(small, false);
  EXPECT_EQ(exec.stack_top, uint64_t{1} << 39);
  EXPECT_EQ(exec.unmapped_base, uint64_t{1} << 37);
  EXPECT_EQ(exec.dyn_base, 0x5555555555u);
  ExecLab lab(small);
  const ElfImage interpreter = Interpreter();
  ASSERT_EQ(lab.Exec(Pie(kPage), &interpreter), Errno::kOk);
  EXPECT_EQ(lab.mm().mmap_base, VirtAddr((uint64_t{1} << 39) - (uint64_t{128} << 20)));
  EXPECT_EQ(lab.mm().start_code, VirtAddr(0x5555555000));
}

// vm.legacy_va_layout: bottom-up from a third (ARM64: a quarter) of user space. An unlimited stack means the same on ARM64 only.
TEST(ExecLayoutTest, TheLegacyLayoutFillsFromTheBottom) {
  for (const bool by_sysctl : {true, false}) {
    for (const LayoutKind kind : {LayoutKind::kX86_32, LayoutKind::kArm64}) {
      ExecLab lab(GetLayout(kind));
      lab.processes->limits().legacy_va_layout = by_sysctl;
      if (!by_sysctl) lab.processes->Setrlimit(lab.pid, 3, ~uint64_t{0}, ~uint64_t{0});
      ASSERT_EQ(lab.Exec(Image("/program", false, {{Type::kLoad, 0, 0x8048000, kPage, kPage, 5, kPage}})), Errno::kOk);
      const bool arm64 = kind == LayoutKind::kArm64;
      EXPECT_EQ(lab.mm().top_down, !by_sysctl && !arm64);
      if (lab.mm().top_down) continue;
      const uint64_t base = arm64 ? uint64_t{1} << 46 : 0x40000000;
      EXPECT_EQ(lab.mm().mmap_base, VirtAddr(base));
      const uint64_t behind_vdso = base + (arm64 ? 3 : 6) * kPage;
      EXPECT_EQ(lab.processes->Mmap(lab.pid, 0, kPage, 3, kPrivateAnon, -1, 0).value(), behind_vdso);
    }
  }
}

TEST(ExecLayoutTest, ThirtyTwoBitArmLivesBelow4Gib) {
  ExecLab lab(GetLayout(LayoutKind::kArm64));
  ElfImage program = Pie(kPage);
  program.machine = kElfArm;
  ElfImage interpreter = Interpreter();
  EXPECT_EQ(lab.Exec(program, &interpreter), Errno::kENOEXEC) << "the interpreter is for 64 bits";
  interpreter.machine = kElfArm;
  ASSERT_EQ(lab.Exec(program, &interpreter), Errno::kOk);
  EXPECT_EQ(lab.mm().task_size, VirtAddr(0xfffff000));
  EXPECT_EQ(lab.mm().mmap_base, VirtAddr(0xf7ff0000));
  // The page that signal handlers return through is small enough for the hole between the interpreter's segments.
  EXPECT_EQ(lab.Maps(),
            (std::vector<std::string>{"400000 /program r-xp", "411000 /program rw-p", "412000 [heap] rw-p", "f7fe9000 [vvar] r--p",
                                      "f7feb000 [vdso] r-xp", "f7fec000 /ld.so r-xp", "f7fee000 [sigpage] r-xp", "f7fef000 /ld.so rw-p",
                                      "fffcf000 [stack] rw-p", "ffff0000 [vectors] r-xp"}));
  // Registers have 32 bits: what is above is cut off, and nothing goes above 4 GiB.
  const auto mapped = lab.processes->Mmap(lab.pid, (uint64_t{1} << 40) + kBase, kPage, 3, kPrivateAnon, -1, 0);
  EXPECT_EQ(mapped.value(), kBase);
  EXPECT_EQ(lab.processes->Mmap(lab.pid, 0xfffff000, kPage, 3, kPrivateAnon | kFixed, -1, 0).error(), Errno::kENOMEM);
  // The pages of the kernel can be read and count as the process's file pages; all processes share them.
  const Pid child = lab.processes->Fork(lab.pid, 0).value();
  for (const Pid who : {lab.pid, child}) {
    AccessRequest request;
    request.address = 0xffff0fe0;
    request.length = 4;
    AccessResult result;
    std::optional<Signal> signal;
    std::string data;
    ASSERT_EQ(lab.processes->Access(who, request, result, signal, data), Errno::kOk);
    EXPECT_FALSE(signal.has_value());
    EXPECT_EQ(result.minor_faults, 1u);
  }
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}

struct HostileCase {
  const char* name;
  std::vector<ProgramHeader> headers;
  Errno answer;  // kENOEXEC: refused before anything is given up; another one ends the process.
};
class HostileExecTest : public testing::TestWithParam<HostileCase> {};

TEST_P(HostileExecTest, IsRefused) {
  for (const LayoutKind kind : {LayoutKind::kX86_32, LayoutKind::kX86_32Pae, LayoutKind::kArm64}) {
    for (const bool position_independent : {false, true}) {
      SCOPED_TRACE(testing::Message() << GetLayout(kind).name << (position_independent ? " PIE" : ""));
      ExecLab lab(GetLayout(kind));
      Explanation why;
      lab.tracer.Explain(&why);
      const Errno answer = lab.Exec(Image("/program", position_independent, GetParam().headers));
      lab.tracer.Explain(nullptr);
      if (GetParam().answer == Errno::kENOEXEC || !position_independent) {
        EXPECT_EQ(answer, GetParam().answer);
      }
      EXPECT_EQ(lab.processes->Find(lab.pid) != nullptr, answer == Errno::kOk || answer == Errno::kENOEXEC);
      EXPECT_FALSE(answer == Errno::kENOEXEC && why.steps().empty()) << "says what is wrong";
      EXPECT_EQ(lab.Violations(), std::vector<std::string>());
    }
  }
}

constexpr uint64_t kText = 0x8048000;
INSTANTIATE_TEST_SUITE_P(
    Tables, HostileExecTest,
    testing::Values(
        HostileCase{"NoSegments", {}, Errno::kENOEXEC},
        HostileCase{"LargerInTheFile", {{Type::kLoad, 0, kText, 2 * kPage, kPage, 5, kPage}}, Errno::kENOEXEC},
        HostileCase{"BeyondUserSpace", {{Type::kLoad, 0, kText, kPage, uint64_t{1} << 48, 5, kPage}}, Errno::kENOEXEC},
        HostileCase{"StartsBeyondUserSpace", {{Type::kLoad, 0, uint64_t{1} << 63, kPage, kPage, 5, kPage}}, Errno::kENOEXEC},
        HostileCase{"AddressPlusSizeWraps", {{Type::kLoad, 0, ~uint64_t{0} - kPage + 1, kPage, kPage, 5, kPage}}, Errno::kENOEXEC},
        HostileCase{"SizeOfAllOnes", {{Type::kLoad, 0, kText, ~uint64_t{0}, ~uint64_t{0}, 5, kPage}}, Errno::kENOEXEC},
        HostileCase{"OffsetAndAddressDiffer", {{Type::kLoad, 1, kText, kPage, kPage, 5, kPage}}, Errno::kENOEXEC},
        HostileCase{"OffsetWraps", {{Type::kLoad, ~uint64_t{0} - kPage + 1, kText, kPage, kPage, 5, kPage}}, Errno::kENOEXEC},
        HostileCase{"NothingInTheFile", {{Type::kLoad, 77, kText, 0, 3 * kPage, 6, 3}}, Errno::kOk},
        HostileCase{"BeyondTheFile", {{Type::kLoad, 100 * kPage, kText, kPage, kPage, 5, kPage}}, Errno::kOk},
        HostileCase{
            "OverlappingSegments",
            {{Type::kLoad, 0, kText, 4 * kPage, 4 * kPage, 5, kPage}, {Type::kLoad, kPage, kText + kPage, kPage, 5 * kPage, 6, kPage}},
            Errno::kOk},
        HostileCase{"SegmentsBackwards",
                    {{Type::kLoad, 0, kText + 8 * kPage, kPage, kPage, 5, kPage}, {Type::kLoad, 0, kText, kPage, kPage, 6, kPage}},
                    Errno::kOk},
        HostileCase{"AtAddressZero", {{Type::kLoad, 0, 0, kPage, kPage, 5, kPage}}, Errno::kEPERM},
        HostileCase{"HugeAlignment", {{Type::kLoad, 0, kText, kPage, kPage, 5, uint64_t{1} << 63}}, Errno::kOk},
        HostileCase{"AlignmentOfAllOnes", {{Type::kLoad, 0, kText, kPage, kPage, 5, ~uint64_t{0}}}, Errno::kOk}),
    [](const auto& c) { return c.param.name; });

// Any table at all: the machine stays consistent, whatever becomes of the process.
TEST(HostileExecTest, SurvivesAnyTable) {
  constexpr uint64_t kEdges[] = {0,
                                 1,
                                 4095,
                                 4096,
                                 kText,
                                 0xbfffe000,
                                 0xbffff000,
                                 0xc0000000,
                                 0xfffff000,
                                 uint64_t{1} << 47,
                                 (uint64_t{1} << 48) - kPage,
                                 uint64_t{1} << 63,
                                 ~uint64_t{0} - 4095,
                                 ~uint64_t{0}};
  for (uint64_t seed = 1; seed <= 1500; ++seed) {
    Random random(seed);
    const auto any = [&] { return random.Below(3) == 0 ? kEdges[random.Below(std::size(kEdges))] : random.Below(64) * kPage; };
    ExecLab lab(GetLayout(static_cast<LayoutKind>(1 + seed % 3)));
    lab.processes->limits().randomize_va_space = static_cast<int>(random.Below(3));
    auto image = [&](const char* path) {
      std::vector<ProgramHeader> headers;
      for (uint64_t i = random.Below(5); i > 0; --i) {
        const uint64_t filesz = random.Below(2) == 0 ? random.Below(5) * 2048 : any();
        headers.push_back({Type::kLoad, random.Below(20) * kPage, kText + any(), filesz, filesz + random.Below(5 * kPage),
                           static_cast<uint32_t>(random.Below(8)), any()});
      }
      ElfImage made = Image(path, random.Below(2) == 0, std::move(headers));
      if (random.Below(6) == 0) made.machine = kElfArm;
      return made;
    };
    const ElfImage interpreter = image("/ld.so");
    (void)lab.Exec(image("/program"), random.Below(2) == 0 ? &interpreter : nullptr);
    if (lab.processes->Find(lab.pid) != nullptr && lab.processes->Find(lab.pid)->mm != nullptr) {
      (void)lab.processes->Sbrk(lab.pid, 3 * kPage).ok();
    }
    ASSERT_EQ(lab.Violations(), std::vector<std::string>()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace mmlab
