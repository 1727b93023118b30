#include "server/hardware/translation_fault.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace mmlab {
namespace {

constexpr LayoutKind kX86 = LayoutKind::kX86_32;
constexpr LayoutKind kPae = LayoutKind::kX86_32Pae;
constexpr LayoutKind kArm = LayoutKind::kArm64;
constexpr ProcessorAccess kUserRead{false, false, true};
constexpr ProcessorAccess kUserWrite{true, false, true};
constexpr ProcessorAccess kUserFetch{false, true, true};
constexpr ProcessorAccess kKernelRead{false, false, false};
constexpr ProcessorAccess kKernelWrite{true, false, false};
constexpr ProcessorAccess kKernelFetch{false, true, false};

constexpr uint64_t kX86Table = 0x1000067;
constexpr uint64_t kArmTable = 0x0800000041000003;
constexpr uint64_t kNx = uint64_t{1} << 63;

struct FaultCase {
  const char* name;
  LayoutKind layout;
  std::vector<uint64_t> entries;  // From the top table down.
  ProcessorAccess access;
  bool hardware_flags;
  const char* kind;  // "": the access goes through.
  int level;
  uint64_t code;  // x86: error code; ARM64: ESR_EL1.
};
class FaultOfTest : public testing::TestWithParam<FaultCase> {};

TEST_P(FaultOfTest, IsWhatTheProcessorRaises) {
  const FaultCase& c = GetParam();
  const Layout& layout = GetLayout(c.layout);
  const PageTableFormat format(layout);
  // A walk over one table a level.
  size_t next = 0;
  PageWalk walk;
  if (!c.entries.empty()) {
    const auto read = [&](Pfn, size_t, void* out, size_t size) { std::memcpy(out, &c.entries.at(next++), size); };
    walk = WalkPageTables(format, read, Pfn(1), VirtAddr(0x8000));
  }
  EXPECT_EQ(next, c.entries.size());
  const std::optional<TranslationFault> fault = FaultOf(layout, walk, c.access, c.hardware_flags);
  ASSERT_EQ(fault.has_value(), c.kind[0] != '\0');
  if (!fault.has_value()) return;
  EXPECT_STREQ(TranslationFaultName(fault->kind), c.kind);
  EXPECT_EQ(fault->level, c.level);
  EXPECT_EQ(layout.is_x86() ? fault->x86_error_code : fault->esr, c.code) << std::hex << fault->esr;
  EXPECT_FALSE(fault->reason.empty());
}

INSTANTIATE_TEST_SUITE_P(
    X86, FaultOfTest,
    testing::Values(FaultCase{"Read", kX86, {kX86Table, 0x777025}, kUserRead, true, "", 0, 0},
                    FaultCase{"NoTable", kX86, {0}, kUserRead, true, "translation", 2, 4},
                    FaultCase{"NoEntry", kX86, {kX86Table, 0}, kUserWrite, true, "translation", 1, 6},
                    FaultCase{"ProtNone", kX86, {kX86Table, 0x777120}, kUserRead, true, "translation", 1, 4},
                    FaultCase{"WriteToReadOnly", kX86, {kX86Table, 0x777025}, kUserWrite, true, "permission", 1, 7},
                    FaultCase{"KernelWriteToReadOnly", kX86, {kX86Table, 0x777025}, kKernelWrite, true, "permission", 1, 3},
                    FaultCase{"UserOfKernelPage", kX86, {kX86Table, 0x777063}, kUserRead, true, "permission", 1, 5},
                    FaultCase{"UserOfKernelTable", kX86, {0x1000063, 0x777067}, kUserRead, true, "permission", 1, 5},
                    FaultCase{"ExecuteIsRead", kX86, {kX86Table, 0x777025}, kUserFetch, true, "", 0, 0},
                    FaultCase{"LargePage", kX86, {0x4001e7}, kUserWrite, true, "", 0, 0},
                    FaultCase{"PaeFetch", kPae, {0x1000001, kX86Table, kNx | 0x777025}, kUserFetch, true, "permission", 1, 21},
                    FaultCase{"PaeFetchNothing", kPae, {0x1000001, kX86Table, 0}, kUserFetch, true, "translation", 1, 20},
                    FaultCase{"PaeRead", kPae, {0x1000001, kX86Table, kNx | 0x777025}, kUserRead, true, "", 0, 0}),
    [](const auto& c) { return c.param.name; });

constexpr uint64_t kArmReadOnly = 0x0060000040777fc3;  // User, UXN, PXN, read only.
constexpr uint64_t kArmClean = 0x0068000040777fc3;     // The same, DBM.
constexpr uint64_t kArmOld = 0x0060000040777bc3;       // Without AF.
constexpr uint64_t kArmKernel = 0x0068000040777703;    // Kernel data.
constexpr uint64_t kArmCode = 0x0020000040777fc3;      // User code.

INSTANTIATE_TEST_SUITE_P(
    Arm64, FaultOfTest,
    testing::Values(
        FaultCase{"NeitherRange", kArm, {}, kUserRead, true, "translation", 0, 0x92000004},
        FaultCase{"NoPgd", kArm, {0}, kUserRead, true, "translation", 4, 0x92000004},
        FaultCase{"NoPte", kArm, {kArmTable, kArmTable, kArmTable, 0}, kUserWrite, true, "translation", 1, 0x92000047},
        FaultCase{"Read", kArm, {kArmTable, kArmTable, kArmTable, kArmReadOnly}, kUserRead, true, "", 0, 0},
        FaultCase{"Write", kArm, {kArmTable, kArmTable, kArmTable, kArmReadOnly}, kUserWrite, true, "permission", 1, 0x9200004f},
        FaultCase{"WriteClean", kArm, {kArmTable, kArmTable, kArmTable, kArmClean}, kUserWrite, true, "", 0, 0},
        FaultCase{
            "WriteCleanBySoftware", kArm, {kArmTable, kArmTable, kArmTable, kArmClean}, kUserWrite, false, "permission", 1, 0x9200004f},
        FaultCase{"Old", kArm, {kArmTable, kArmTable, kArmTable, kArmOld}, kUserRead, true, "", 0, 0},
        FaultCase{"OldBySoftware", kArm, {kArmTable, kArmTable, kArmTable, kArmOld}, kUserRead, false, "access flag", 1, 0x9200000b},
        FaultCase{"FetchData", kArm, {kArmTable, kArmTable, kArmTable, kArmReadOnly}, kUserFetch, true, "permission", 1, 0x8200000f},
        FaultCase{"FetchCode", kArm, {kArmTable, kArmTable, kArmTable, kArmCode}, kUserFetch, true, "", 0, 0},
        FaultCase{
            "KernelFetchesUserCode", kArm, {kArmTable, kArmTable, kArmTable, kArmCode}, kKernelFetch, true, "permission", 1, 0x8600000f},
        FaultCase{"UserOfKernelPage", kArm, {kArmTable, kArmTable, kArmTable, kArmKernel}, kUserRead, true, "permission", 1, 0x9200000f},
        FaultCase{"KernelReads", kArm, {kArmTable, kArmTable, kArmTable, kArmKernel}, kKernelRead, true, "", 0, 0},
        FaultCase{"KernelReadsNothing", kArm, {kArmTable, 0}, kKernelRead, true, "translation", 3, 0x96000005}),
    [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace mmlab
