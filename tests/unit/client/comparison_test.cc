#include "client/replay/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace mmlab {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

// A recording of two steps; the second changes nothing that the first did not.
std::vector<ordered_json> Recorded() {
  std::vector<ordered_json> records;
  for (const char* line : {R"({"kind":"header"})",
                           R"({"kind":"initial","step":0,"procs":{"0":{"minflt":27,"oom_score":666,"status":{"vm_size":8192,"vm_rss":4096},
            "vmas":[["0x1000","0x3000","rw-p",0,"heap"]],"smaps":{"0x1000":{"rss":4096,"referenced":4096,"vm_flags":"rd wr"}},
            "rss":{"anon":4096,"file":0,"shmem":0}}},"committed_as":100})",
                           R"({"kind":"step","step":1,"proc":0,"op":"st","args":{"addr":"0x2000"},"procs":{"0":{"minflt_delta":1,
            "smaps":{"0x1000":{"rss":8192,"referenced":8192,"vm_flags":"rd wr"}},"rss":{"anon":8192,"file":0,"shmem":0}}},
            "committed_as_delta":4096})",
                           R"({"kind":"step","step":2,"proc":0,"op":"ld","args":{"addr":"0x2000"},"value":"0x0"})"}) {
    records.push_back(ordered_json::parse(line));
  }
  return records;
}

struct JudgementCase {
  const char* name;
  std::function<void(std::vector<ordered_json>&)> change;  // Of the answers.
  int exact;
  const char* first_difference;
};

class ComparisonTest : public testing::TestWithParam<JudgementCase> {};

TEST_P(ComparisonTest, JudgesAsCompareDotPyDoes) {
  std::vector<ordered_json> answers = Recorded();
  GetParam().change(answers);
  const absl::StatusOr<Comparison> comparison = CompareAnswers(Recorded(), answers);
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_EQ(comparison->steps, 2);
  EXPECT_EQ(comparison->exact, GetParam().exact);
  EXPECT_THAT(comparison->first_difference, HasSubstr(GetParam().first_difference));
}

using Records = std::vector<ordered_json>;
INSTANTIATE_TEST_SUITE_P(
    Changes, ComparisonTest,
    testing::Values(
        JudgementCase{"None", [](Records&) {}, 2, ""},
        JudgementCase{"FullInsteadOfChanges", [](Records& r) { r[3]["procs"]["0"]["rss"] = r[2]["procs"]["0"]["rss"]; }, 2, ""},
        JudgementCase{"OrderOfKeys",
                      [](Records& r) {
                        r[2]["procs"]["0"]["rss"] = {{"shmem", 0}, {"file", 0}, {"anon", 8192}};
                        r[2]["procs"]["0"]["smaps"]["0x1000"]["vm_flags"] = "wr rd";
                      },
                      2, ""},
        JudgementCase{"ReferencedIsNotJudged", [](Records& r) { r[2]["procs"]["0"]["smaps"]["0x1000"]["referenced"] = 0; }, 2, ""},
        JudgementCase{"AbsoluteFaultsOfTheStart", [](Records& r) { r[1]["procs"]["0"]["minflt"] = 1; }, 2, ""},
        JudgementCase{"Fault", [](Records& r) { r[2]["procs"]["0"]["minflt_delta"] = 2; }, 1, "faults/0[0]: recorded 1  answered 2"},
        JudgementCase{"CommitOfOneStep", [](Records& r) { r[2].erase("committed_as_delta"); }, 1, "commit: recorded 4096  answered 0"},
        JudgementCase{"RssStaysWrong", [](Records& r) { r[2]["procs"]["0"].erase("rss"); }, 0, "rss/0/anon: recorded 8192  answered 4096"},
        JudgementCase{"SmapsStayWrong", [](Records& r) { r[2]["procs"]["0"].erase("smaps"); }, 0, "smaps/0/0x1000/rss: recorded 8192"},
        JudgementCase{"VmFlags", [](Records& r) { r[2]["procs"]["0"]["smaps"]["0x1000"]["vm_flags"] = "rd"; }, 0,
                      "smaps/0/0x1000/vm_flags"},
        JudgementCase{"Vma", [](Records& r) { r[1]["procs"]["0"]["vmas"][0][2] = "r--p"; }, 0, "vmas/0[1][0][2]: recorded \"rw-p\""},
        JudgementCase{"Status", [](Records& r) { r[1]["procs"]["0"]["status"]["vm_size"] = 1; }, 0, "status/0/vm_size: recorded 8192"},
        JudgementCase{"LaggingStatus", [](Records& r) { r[1]["procs"]["0"]["status"]["vm_rss"] = 1; }, 0, "status/0/vm_rss: recorded 4096"},
        JudgementCase{"OomScore", [](Records& r) { r[1]["procs"]["0"]["oom_score"] = 1; }, 0, "oom_score/0: recorded 666  answered 1"},
        JudgementCase{"Value", [](Records& r) { r[3]["value"] = "0x1"; }, 1, "step 2 proc 0 ld {\"addr\":\"0x2000\"}"},
        JudgementCase{"AnotherProcess", [](Records& r) { r[3]["procs"]["1"]["oom_score"] = 1; }, 1, "oom_score/1: recorded null"},
        JudgementCase{"ProcessGone", [](Records& r) { r[3]["procs"]["0"]["exited"] = true; }, 1, "answered null"},
        JudgementCase{"StepMissing", [](Records& r) { r.pop_back(); }, 1, "step 2 proc 0"},
        JudgementCase{"EverythingMissing", [](Records& r) { r.clear(); }, 0, "step 1 proc 0"}),
    [](const auto& tested) { return tested.param.name; });

TEST(ComparisonContentTest, UnspecifiedContentIsNotCompared) {
  std::vector<ordered_json> recorded = Recorded();
  recorded[3]["content_unspecified"] = true;
  std::vector<ordered_json> answers = Recorded();
  answers[3]["value"] = "0x77";
  EXPECT_EQ(CompareAnswers(recorded, answers)->exact, 2);
  answers.pop_back();
  EXPECT_EQ(CompareAnswers(recorded, answers)->exact, 1);
}

TEST(ComparisonFormatTest, DamagedRecordsAreAStatus) {
  std::vector<ordered_json> recorded = Recorded();
  recorded[1]["procs"]["0"]["vmas"] = {1, 2};
  EXPECT_EQ(CompareAnswers(recorded, Recorded()).status().code(), absl::StatusCode::kInvalidArgument);
  recorded = Recorded();
  recorded[2]["procs"] = "none";
  EXPECT_EQ(CompareAnswers(recorded, Recorded()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmlab
