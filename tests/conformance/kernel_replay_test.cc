// Performs recordings of the allocators of real kernels: each starts from its first dump and must give the same answers and leave the same
// lists. Recordings: data/kernel/*/*/<suite>/*.jsonl.gz; with MMLAB_REFERENCE=<folder>, those under <folder>/kernel instead.

#include "client/replay/kernel/kernel_replay.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "client/replay/kernel/kernel_comparison.h"
#include "gtest/gtest.h"

namespace mmlab {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> RecordingsOf(const std::string& suite) {
  const char* reference = std::getenv("MMLAB_REFERENCE");
  const fs::path root = reference != nullptr ? fs::path(reference) / "kernel" : fs::path("tests/conformance/data/kernel");
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.path().extension() == ".gz" && entry.path().parent_path().filename() == suite) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

class KernelReplayTest : public testing::TestWithParam<const char*> {};

TEST_P(KernelReplayTest, EveryRecordingGivesTheSameAnswersAndLists) {
  const std::vector<std::string> recordings = RecordingsOf(GetParam());
  ASSERT_FALSE(recordings.empty());
  int64_t steps = 0;
  size_t exact = 0;
  for (const std::string& path : recordings) {
    SCOPED_TRACE(path);
    const absl::StatusOr<Recording> recording = ReadRecording(path);
    ASSERT_TRUE(recording.ok()) << recording.status();
    const absl::StatusOr<KernelAnswers> answers = ReplayKernel(*recording);
    ASSERT_TRUE(answers.ok()) << answers.status();
    EXPECT_EQ(answers->broken, std::vector<std::string>());
    const absl::StatusOr<Comparison> comparison = CompareKernelAnswers(recording->records, answers->records);
    ASSERT_TRUE(comparison.ok()) << comparison.status();
    EXPECT_EQ(comparison->first_difference, "");
    steps += comparison->steps;
    exact += comparison->steps == comparison->exact;
  }
  std::cout << exact << " of " << recordings.size() << " recordings of " << GetParam() << " are the same to the end; " << steps
            << " operations and dumps\n";
}

INSTANTIATE_TEST_SUITE_P(Suites, KernelReplayTest, testing::Values("buddy"), [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace mmlab
