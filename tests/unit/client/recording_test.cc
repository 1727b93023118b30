#include "client/replay/recording.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>

namespace mmlab {
namespace {

using nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

struct WordCase {
  const char* name;
  const char* json;
  bool ok;
  uint64_t word;
};

class ParseWordTest : public testing::TestWithParam<WordCase> {};

TEST_P(ParseWordTest, ReadsNumbersAndText) {
  uint64_t word = 0;
  EXPECT_EQ(ParseWord(ordered_json::parse(GetParam().json), &word), GetParam().ok);
  if (GetParam().ok) {
    EXPECT_EQ(word, GetParam().word);
  }
}

INSTANTIATE_TEST_SUITE_P(Values, ParseWordTest,
                         testing::Values(WordCase{"Hex", R"("0x1f")", true, 0x1f},                          //
                                         WordCase{"AllBits", R"("0xffffffffffffffff")", true, UINT64_MAX},  //
                                         WordCase{"Decimal", R"("8388608")", true, 8388608},                //
                                         WordCase{"Unlimited", R"("unlimited")", true, UINT64_MAX},         //
                                         WordCase{"Number", "17", true, 17},                                //
                                         WordCase{"Negative", "-1", true, UINT64_MAX},                      //
                                         WordCase{"TooLong", R"("0x10000000000000000")", false, 0},         //
                                         WordCase{"Word", R"("many")", false, 0},                           //
                                         WordCase{"Empty", R"("")", false, 0},                              //
                                         WordCase{"Fraction", "1.5", false, 0},                             //
                                         WordCase{"List", "[1]", false, 0}),
                         [](const auto& tested) { return tested.param.name; });

class RecordingFileTest : public testing::Test {
 protected:
  RecordingFileTest() : folder_(testing::TempDir() + "mmlab-recording-test-" + std::to_string(getpid())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~RecordingFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::string WriteCompressed(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    const gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
    return path;
  }

  const std::string folder_;
};

constexpr char kText[] = "{\"kind\":\"header\"}\n{\"kind\":\"initial\",\"step\":0}\n\n{\"kind\":\"step\",\"step\":1}\n";

TEST_F(RecordingFileTest, ReadsPlainAndCompressedFilesAlike) {
  const absl::StatusOr<Recording> plain = ReadRecording(Write("a.jsonl", kText));
  const absl::StatusOr<Recording> compressed = ReadRecording(WriteCompressed("b.jsonl.gz", kText));
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_TRUE(compressed.ok()) << compressed.status();
  EXPECT_EQ(plain->records.size(), 3u);
  EXPECT_EQ(plain->records, compressed->records);
}

TEST_F(RecordingFileTest, RefusesWhatIsNoRecording) {
  const auto message = [](const std::string& path) {
    const absl::StatusOr<Recording> recording = ReadRecording(path);
    return recording.ok() ? "read" : std::string(recording.status().message());
  };
  EXPECT_THAT(message(folder_ + "/none.jsonl"), HasSubstr("can't be read"));
  EXPECT_THAT(message(Write("empty.jsonl", "")), HasSubstr("first line is not a header"));
  EXPECT_THAT(message(Write("noheader.jsonl", "{\"kind\":\"step\"}\n")), HasSubstr("first line is not a header"));
  EXPECT_THAT(message(Write("text.jsonl", "{\"kind\":\"header\"}\nhello\n")), HasSubstr("text.jsonl:2: not a JSON object"));
  EXPECT_THAT(message(Write("list.jsonl", "[1]\n")), HasSubstr("list.jsonl:1: not a JSON object"));
  std::string damaged;
  std::ifstream in(WriteCompressed("good.jsonl.gz", std::string(100000, 'x')), std::ios::binary);
  damaged.assign(std::istreambuf_iterator<char>(in), {});
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 0x55);
  EXPECT_THAT(message(Write("damaged.jsonl.gz", damaged)), HasSubstr("damaged.jsonl.gz"));
}

TEST_F(RecordingFileTest, FindsRecordingsOfAFolderInOrder) {
  Write("z/2.jsonl", kText);
  Write("z/1.jsonl.gz", kText);
  Write("a/9.jsonl", kText);
  Write("a/notes.txt", "no recording");
  const absl::StatusOr<std::vector<std::string>> found = FindRecordings(folder_);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(*found, ElementsAre(folder_ + "/a/9.jsonl", folder_ + "/z/1.jsonl.gz", folder_ + "/z/2.jsonl"));
  std::filesystem::create_directories(folder_ + "/empty");
  EXPECT_EQ(FindRecordings(folder_ + "/empty").status().code(), absl::StatusCode::kNotFound);
}

TEST(ReadingRecordingTest, MakesAStatusOfWhatTheFormatDoesNotSay) {
  const ordered_json record = {{"step", "three"}};
  const auto read = [&](const char* key) {
    return ReadingRecording([&]() -> absl::StatusOr<int> { return record.at(key).get<int>(); }).status().code();
  };
  EXPECT_EQ(read("step"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(read("proc"), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmlab
