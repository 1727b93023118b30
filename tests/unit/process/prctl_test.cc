#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "server/process/address_space.h"
#include "tests/unit/process/memory_lab.h"

namespace mmlab {
namespace {

constexpr int32_t kSetMm = 35;

void WriteBytes(MemoryLab& lab, uint64_t address, const std::string& bytes) {
  AccessRequest request;
  request.kind = AccessKind::kWriteBytes;
  request.address = address;
  request.length = bytes.size();
  request.data = bytes;
  AccessResult result;
  std::optional<Signal> signal;
  std::string data;
  ASSERT_EQ(lab.processes->Access(lab.pid, request, result, signal, data), Errno::kOk);
  ASSERT_FALSE(signal.has_value());
}

std::string ReadBytes(MemoryLab& lab, uint64_t address, uint64_t length) {
  AccessRequest request;
  request.kind = AccessKind::kReadBytes;
  request.address = address;
  request.length = length;
  AccessResult result;
  std::optional<Signal> signal;
  std::string data;
  EXPECT_EQ(lab.processes->Access(lab.pid, request, result, signal, data), Errno::kOk);
  return data;
}

struct PrctlCase {
  const char* name;
  int32_t option;
  uint64_t arg2;
  uint64_t arg3;
  uint64_t arg4;
  Errno answer;  // kENOSYS: Linux knows the option, this does not.
};
class PrctlTest : public testing::TestWithParam<PrctlCase> {};

TEST_P(PrctlTest, AnswersAnUnprivilegedProcess) {
  MemoryLab lab(LayoutKind::kArm64);
  const PrctlCase& c = GetParam();
  EXPECT_EQ(lab.processes->Prctl(lab.pid, c.option, c.arg2, c.arg3, c.arg4, 0).error(), c.answer);
}

INSTANTIATE_TEST_SUITE_P(Options, PrctlTest,
                         testing::Values(PrctlCase{"Unknown", 1000, 0, 0, 0, Errno::kEINVAL},             //
                                         PrctlCase{"Negative", -1, 0, 0, 0, Errno::kEINVAL},              //
                                         PrctlCase{"MdweIsOfALaterKernel", 65, 0, 0, 0, Errno::kEINVAL},  //
                                         PrctlCase{"UnalignIsOfOtherArchitectures", 6, 1, 0, 0, Errno::kEINVAL},
                                         PrctlCase{"MpxIsGone", 43, 0, 0, 0, Errno::kEINVAL},
                                         PrctlCase{"ParentDeathSignalIsNotSimulated", 1, 9, 0, 0, Errno::kENOSYS},
                                         PrctlCase{"DumpableTwo", 4, 2, 0, 0, Errno::kEINVAL},
                                         PrctlCase{"ThpDisableWithMoreArguments", 41, 1, 1, 0, Errno::kEINVAL},
                                         PrctlCase{"GetThpDisableWithAnArgument", 42, 1, 0, 0, Errno::kEINVAL},
                                         PrctlCase{"NameFromNowhere", 15, kBase, 0, 0, Errno::kEFAULT},
                                         PrctlCase{"NameToNowhere", 16, kBase, 0, 0, Errno::kEFAULT},
                                         PrctlCase{"SetMmNeedsRoot", kSetMm, 7, kBase, 0, Errno::kEPERM},
                                         PrctlCase{"SetMmWithAnArgumentTooMuch", kSetMm, 7, kBase, 1, Errno::kEINVAL},
                                         PrctlCase{"SetMmMapOfAnotherSize", kSetMm, 14, kBase, 103, Errno::kEINVAL},
                                         PrctlCase{"SetMmMapFromNowhere", kSetMm, 14, kBase, 104, Errno::kEFAULT},
                                         PrctlCase{"NamingMemoryIsNotBuiltIn", 0x53564d41, 0, kBase, kPage, Errno::kEINVAL}),
                         [](const auto& c) { return c.param.name; });

TEST(PrctlNameTest, GoesThroughTheMemoryOfTheProcess) {
  MemoryLab lab(LayoutKind::kX86_32);
  lab.Map(lab.pid, 0, 1, 3, kPrivateAnon);
  WriteBytes(lab, kBase, std::string("a name that is too long\0", 24));
  ASSERT_TRUE(lab.processes->Prctl(lab.pid, 15, kBase, 0, 0, 0).ok());
  EXPECT_EQ(lab.process(lab.pid).comm, "a name that is ");
  ASSERT_TRUE(lab.processes->Prctl(lab.pid, 16, kBase + 100, 0, 0, 0).ok());
  EXPECT_EQ(ReadBytes(lab, kBase + 100, 16), std::string("a name that is \0", 16));
  // A name that ends before the memory does.
  WriteBytes(lab, kBase + kPage - 3, std::string("ab\0", 3));
  ASSERT_TRUE(lab.processes->Prctl(lab.pid, 15, kBase + kPage - 3, 0, 0, 0).ok());
  EXPECT_EQ(lab.process(lab.pid).comm, "ab");
}

TEST(PrctlMemoryTest, DumpableAndThpAreInherited) {
  MemoryLab lab(LayoutKind::kArm64);
  EXPECT_EQ(lab.processes->Prctl(lab.pid, 3, 0, 0, 0, 0).value(), 1u);
  ASSERT_TRUE(lab.processes->Prctl(lab.pid, 4, 0, 0, 0, 0).ok());
  ASSERT_TRUE(lab.processes->Prctl(lab.pid, 41, 7, 0, 0, 0).ok());
  const Pid child = lab.processes->Fork(lab.pid, 0).value();
  EXPECT_EQ(lab.processes->Prctl(child, 3, 0, 0, 0, 0).value(), 0u);
  EXPECT_EQ(lab.processes->Prctl(child, 42, 0, 0, 0, 0).value(), 1u);
}

// A root process moves its heap by PR_SET_MM: /proc shows what it says, brk goes on from there.
TEST(PrctlSetMmTest, RootMovesItsHeap) {
  MemoryLab lab(LayoutKind::kX86_32);
  const Pid root = lab.processes->Create("root", 0, false).value();
  ElfImage image;
  image.path = "/program";
  image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x8048000, kPage, kPage, 5, kPage},
                           {ProgramHeader::Type::kLoad, 0, 0x8050000, kPage, kPage, 6, kPage},
                           {ProgramHeader::Type::kGnuStack, 0, 0, 0, 0, 6, 16}};
  ASSERT_TRUE(lab.processes->Exec(root, image, nullptr, {"root"}, {}).ok());
  auto set = [&](uint64_t what, uint64_t address) { return lab.processes->Prctl(root, kSetMm, what, address, 0, 0).error(); };
  EXPECT_EQ(set(6, kBase), Errno::kEINVAL) << "start_brk would lie above brk";
  EXPECT_EQ(set(7, kBase + 8 * kPage), Errno::kOk);
  EXPECT_EQ(set(6, kBase + 8 * kPage), Errno::kOk);
  EXPECT_EQ(set(7, 0xc0000000), Errno::kEINVAL);
  EXPECT_EQ(set(7, 4096), Errno::kEINVAL) << "below mmap_min_addr";
  EXPECT_EQ(set(12 + 4, kBase), Errno::kEINVAL);
  EXPECT_EQ(lab.processes->Brk(root, kBase + 10 * kPage).value(), kBase + 10 * kPage);
  EXPECT_EQ(lab.processes->Sbrk(root, 100).value(), kBase + 10 * kPage);
  EXPECT_EQ(lab.processes->Sbrk(root, 0).value(), kBase + 10 * kPage + 100);
  EXPECT_EQ(lab.processes->Sbrk(root, 0x7fffffff).error(), Errno::kENOMEM);
  // Below the start of the heap nothing moves, but the break that the kernel answers is not lower than the wish: the C library is content.
  EXPECT_EQ(lab.processes->Sbrk(root, -0x40000000).value(), kBase + 10 * kPage + 100);
  EXPECT_EQ(lab.processes->Sbrk(root, 0).value(), kBase + 10 * kPage + 100);
  EXPECT_EQ(set(13, 99), Errno::kEBADF);
  ASSERT_TRUE(lab.processes->Open(root, "/ext4", 0, 5).ok());
  EXPECT_EQ(set(13, 5), Errno::kEBUSY) << "the program is still mapped";
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}

TEST(VforkTest, TheParentWaitsUntilTheChildExecsOrExits) {
  MemoryLab lab(LayoutKind::kArm64);
  const Pid child = lab.processes->Fork(lab.pid, 0x4100).value();
  EXPECT_TRUE(lab.processes->Held(lab.pid));
  EXPECT_EQ(lab.process(child).mm, lab.process(lab.pid).mm);
  ElfImage image;
  image.path = "/program";
  image.program_headers = {{ProgramHeader::Type::kLoad, 0, 0x400000, kPage, kPage, 5, kPage}};
  ASSERT_TRUE(lab.processes->Exec(child, image, nullptr, {"child"}, {}).ok());
  EXPECT_FALSE(lab.processes->any_held());
  const Pid second = lab.processes->Fork(lab.pid, 0x4100).value();
  EXPECT_TRUE(lab.processes->Held(lab.pid));
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
  ASSERT_EQ(lab.processes->Exit(second, 0), Errno::kOk);
  EXPECT_FALSE(lab.processes->Held(lab.pid));
  // Who is killed while it waits is counted no more.
  ASSERT_TRUE(lab.processes->Fork(lab.pid, 0x4000).ok());
  ASSERT_EQ(lab.processes->Exit(lab.pid, 0), Errno::kOk);
  EXPECT_FALSE(lab.processes->any_held());
  EXPECT_EQ(lab.Violations(), std::vector<std::string>());
}

}  // namespace
}  // namespace mmlab
