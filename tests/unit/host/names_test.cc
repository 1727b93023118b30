#include "server/host/names.h"

#include <string>

#include "gtest/gtest.h"

namespace mmlab {
namespace {

struct MachineIdCase {
  const char* name;
  std::string id;
  bool good;
};
class MachineIdTest : public testing::TestWithParam<MachineIdCase> {};

TEST_P(MachineIdTest, IsAsDocumented) {
  EXPECT_EQ(IsMachineId(GetParam().id), GetParam().good);
  const absl::StatusOr<absl::string_view> parsed = ParseMachineName("name", "machines/" + GetParam().id);
  EXPECT_EQ(parsed.ok(), GetParam().good) << parsed.status();
}

INSTANTIATE_TEST_SUITE_P(Ids, MachineIdTest,
                         testing::Values(MachineIdCase{"OneLetter", "a", true}, MachineIdCase{"LettersDigitsHyphen", "a-1b", true},
                                         MachineIdCase{"Longest", "a" + std::string(62, '0'), true},
                                         MachineIdCase{"TooLong", "a" + std::string(63, '0'), false}, MachineIdCase{"Empty", "", false},
                                         MachineIdCase{"DigitFirst", "1a", false}, MachineIdCase{"HyphenFirst", "-a", false},
                                         MachineIdCase{"HyphenLast", "a-", false}, MachineIdCase{"UpperCase", "aB", false},
                                         MachineIdCase{"Underscore", "a_b", false}, MachineIdCase{"Slash", "a/b", false},
                                         MachineIdCase{"Nul", std::string("a\0b", 3), false}, MachineIdCase{"Utf8", "ä", false}),
                         [](const auto& tested) { return tested.param.name; });

struct ProcessNameCase {
  const char* name;
  const char* text;
  int32_t pid;  // 0: refused.
};
class ProcessNameTest : public testing::TestWithParam<ProcessNameCase> {};

TEST_P(ProcessNameTest, IsCanonicalOrRefused) {
  const absl::StatusOr<ProcessName> parsed = ParseProcessName("name", GetParam().text);
  ASSERT_EQ(parsed.ok(), GetParam().pid != 0) << parsed.status();
  if (!parsed.ok()) return;
  EXPECT_EQ(parsed->pid, GetParam().pid);
  EXPECT_EQ(ProcessNameOf(parsed->machine, parsed->pid), GetParam().text);
}

INSTANTIATE_TEST_SUITE_P(
    Names, ProcessNameTest,
    testing::Values(ProcessNameCase{"Good", "machines/a/processes/7", 7},
                    ProcessNameCase{"LargestPid", "machines/a/processes/2147483647", 2147483647},
                    ProcessNameCase{"TooLargePid", "machines/a/processes/2147483648", 0},
                    ProcessNameCase{"Zero", "machines/a/processes/0", 0}, ProcessNameCase{"Negative", "machines/a/processes/-1", 0},
                    ProcessNameCase{"LeadingZero", "machines/a/processes/07", 0}, ProcessNameCase{"Plus", "machines/a/processes/+7", 0},
                    ProcessNameCase{"Space", "machines/a/processes/ 7", 0}, ProcessNameCase{"NoPid", "machines/a/processes/", 0},
                    ProcessNameCase{"NoProcess", "machines/a", 0}, ProcessNameCase{"BadMachine", "machines/A/processes/7", 0},
                    ProcessNameCase{"Trailing", "machines/a/processes/7/maps", 0}),
    [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace mmlab
