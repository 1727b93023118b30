#include "server/machine/iomem_text.h"

#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

// A 64-bit PC's.
constexpr char kPc[] =
    "00000000-00000fff : Reserved\n"
    "00001000-0009ffff : System RAM\n"
    "000a0000-000fffff : Reserved\n"
    "  000a0000-000bffff : PCI Bus 0000:00\n"
    "00100000-7ffdcfff : System RAM\n"
    "  1a000000-1b0fffff : Kernel code\n"
    "  1b200000-1bbfffff : Kernel rodata\n"
    "7ffdd000-7fffffff : Reserved\n"
    "80000000-afffffff : PCI Bus 0000:00\n"
    "  80000000-807fffff : 0000:00:01.0\n"
    "b0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]\n"
    "fec00000-fec003ff : IOAPIC 0\n"
    "100000000-17fffffff : System RAM\n"
    "7000000000-77ffffffff : PCI Bus 0000:00\n"
    "  7000000000-7000003fff : 0000:00:04.0\n"
    "    7000000000-7000003fff : virtio-pci-modern\n";

TEST(IomemTextTest, APcsTreeIsAcceptedWhereItsRamCanBeAddressed) {
  MachineSpec spec;
  spec.layout = LayoutKind::kX86_32Pae;
  ASSERT_TRUE(DescribeFromIomemText(kPc, spec).ok());
  const auto machine = Machine::Boot(spec);
  ASSERT_TRUE(machine.ok()) << machine.status();
  const std::string text = [&] {
    std::string all;
    for (const IomemResource& node : (*machine)->spec().iomem_resources) all += node.name + ";";
    return all;
  }();
  EXPECT_TRUE(absl::StrContains(text, "PCI ECAM 0000 [bus 00-ff]")) << text;
  EXPECT_EQ((*machine)->memory().zones()[2].end_pfn(), 0x180000u);
  EXPECT_EQ((*machine)->CheckInvariants(), std::vector<std::string>());

  spec = MachineSpec();
  spec.layout = LayoutKind::kX86_32;
  const absl::Status refused = DescribeFromIomemText(kPc, spec);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(refused.message(), "x86_32 addresses memory below 0x100000000 only")) << refused;
}

struct BadCase {
  const char* name;
  const char* text;
  const char* says;
};
class BadIomemTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadIomemTest, NamesTheLine) {
  const auto tree = ParseIomemText(GetParam().text);
  ASSERT_EQ(tree.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(tree.status().message(), GetParam().says)) << tree.status();
}
INSTANTIATE_TEST_SUITE_P(
    Texts, BadIomemTest,
    testing::Values(BadCase{"Empty", "\n\n", "must have a line"}, BadCase{"Prose", "hello", "line 1: must be START"},
                    BadCase{"NoName", "0-1\n", "line 1: must be START"}, BadCase{"NotHex", "0-xyz : a\n", "line 1: must be"},
                    BadCase{"TooManyDigits", "0-11111111111111111 : a\n", "line 1: must be"},
                    BadCase{"Backwards", "5-4 : a\n", "line 1: the last address"},
                    BadCase{"OddIndent", "0-9 : a\n 1-2 : b\n", "line 2: must be START"},
                    BadCase{"TooDeep", "0-9 : a\n    1-2 : b\n", "line 2: must be at most one level"},
                    BadCase{"Outside", "0-9 : a\n  5-a : b\n", "line 2: must lie within 'a'"},
                    BadCase{"Overlap", "0-9 : a\n5-f : b\n", "line 2: must lie behind 'a'"},
                    BadCase{"Unprivileged", "00000000-00000000 : System RAM\n00000000-00000000 : b\n", "CAP_SYS_ADMIN"},
                    BadCase{"TooHigh", "0-ffffffffffffffff : a\n", "below 2^56"}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mmlab
