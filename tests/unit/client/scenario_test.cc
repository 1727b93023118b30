#include "client/replay/system/scenario.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "client/replay/system/scenario_player.h"
#include "server/service/server.h"

namespace mmlab {
namespace {

using nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

ordered_json Header() {
  return ordered_json::parse(R"({"kind":"header","format":"system-script","name":"small","flavour":"686","ram":"96M","page_size":4096,
    "zones":[{"node":0,"name":"DMA","free_at_start":3840,"min":54,"low":67,"high":80,"spanned":4095,"present":3998,"managed":3840,"cma":0,
              "start_pfn":1},
             {"node":0,"name":"Normal","free_at_start":11757,"min":225,"low":281,"high":337,"spanned":20436,"present":20436,
              "managed":16543,"cma":0,"start_pfn":4096}],
    "baseline":{},"swap_devices":[],"files":[]})");
}

class ScenarioTest : public testing::Test {
 protected:
  ScenarioTest() : folder_(testing::TempDir() + "mmlab-scenario-test-" + std::to_string(getpid())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ + "/one/before");
  }
  ~ScenarioTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& text) {
    std::ofstream(folder_ + "/one/script.jsonl", std::ios::binary) << text;
    return folder_ + "/one";
  }

  absl::Status Play(const std::vector<std::string>& ops, const ordered_json& header = Header()) {
    Scenario scenario;
    scenario.header = header;
    for (const std::string& op : ops) scenario.operations.push_back(ordered_json::parse(op));
    const auto server = Server::Start(ServerOptions{});
    if (!server.ok()) return server.status();
    Connection connection((*server)->InProcessChannel());
    answers_ = ScenarioAnswers();
    return PlayScenario(connection, scenario, /*keep_machine=*/false, answers_);
  }

  const std::string folder_;
  ScenarioAnswers answers_;
};

TEST_F(ScenarioTest, TakesTheOperationsAndLeavesTheAnswersToTheJudge) {
  const std::string folder =
      Write(Header().dump() + "\n{\"kind\":\"op\",\"op\":\"sync\"}\n{\"kind\":\"result\",\"process\":\"a\",\"killed\":true}\n");
  EXPECT_THAT(FindScenarios(folder_), ElementsAre(folder));
  const absl::StatusOr<Scenario> scenario = ReadScenario(folder);
  ASSERT_TRUE(scenario.ok()) << scenario.status();
  ASSERT_EQ(scenario->operations.size(), 1u);
  EXPECT_EQ(scenario->operations[0].at("op"), "sync");
}

TEST_F(ScenarioTest, OtherScriptsAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(ReadScenario(Write("{\"kind\":\"header\",\"format\":\"lab-trace\"}\n")).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadScenario(folder_).status()));
  EXPECT_THAT(FindScenarios(folder_ + "/none"), ElementsAre());
}

TEST_F(ScenarioTest, TheMachineHasTheRecordedZones) {
  ASSERT_EQ(Play({R"({"kind":"op","op":"snapshot","name":"before"})"}), absl::OkStatus());
  EXPECT_THAT(answers_.snapshot_files.at("before/meminfo"), HasSubstr("MemTotal:          81532 kB\n"));
  EXPECT_THAT(answers_.snapshot_files.at("before/zoneinfo"), HasSubstr("pages free     117"));
  EXPECT_THAT(answers_.snapshot_files.at("before/zoneinfo"), HasSubstr("min      225\n        low      281\n        high     337"));
}

TEST_F(ScenarioTest, ResultsAreInTheScriptsForm) {
  const absl::Status status = Play({
      R"({"kind":"op","op":"write_file","path":"/proc/sys/vm/swappiness","value":"201"})",
      R"({"kind":"op","op":"start","process":"p","cgroup":"","oom_score_adj":0})",
      R"({"kind":"op","op":"mmap","process":"p","kib":64,"kind_of":"anon","region":0})",
      R"({"kind":"op","op":"touch","process":"p","region":0,"write":true,"kib":64,"offset_kib":0})",
      R"({"kind":"op","op":"munmap","process":"p","region":0,"kib":4,"offset_kib":4})",
      R"({"kind":"op","op":"madvise","process":"p","region":0,"advice":4})",
      R"({"kind":"op","op":"fly","process":"p"})",
      R"({"kind":"op","op":"end","process":"p"})",
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(answers_.results,
              ElementsAre(ordered_json::parse(R"({"kind":"result","path":"/proc/sys/vm/swappiness","error":"Invalid argument"})"),
                          ordered_json::parse(R"({"kind":"result","process":"p","mmap":0})"),
                          ordered_json::parse(R"({"kind":"result","process":"p","ret":0})"),
                          ordered_json::parse(R"({"kind":"result","process":"p","ret":-12})")));
  EXPECT_THAT(answers_.not_simulated, ElementsAre(Pair("fly", 1)));
}

TEST_F(ScenarioTest, NoNameLeavesTheFolder) {
  EXPECT_TRUE(absl::IsInvalidArgument(Play({R"({"kind":"op","op":"snapshot","name":"../up"})"})));
  EXPECT_TRUE(absl::IsInvalidArgument(Play({R"({"kind":"op","op":"snapshot","name":"a/b"})"})));
  EXPECT_TRUE(absl::IsInvalidArgument(Play({R"({"kind":"op","op":"start","process":"a/b","cgroup":""})"})));
  EXPECT_TRUE(absl::IsInvalidArgument(Play({R"({"kind":"op","op":"snapshot"})"})));
}

TEST_F(ScenarioTest, WhatWasAnsweredBeforeAnErrorIsKept) {
  EXPECT_TRUE(absl::IsInvalidArgument(Play({
      R"({"kind":"op","op":"write_file","path":"/proc/sys/vm/swappiness","value":"10"})",
      R"({"kind":"op","op":"snapshot","name":"before"})",
      R"({"kind":"op","op":"snapshot"})",
  })));
  EXPECT_EQ(answers_.results.size(), 1u);
  EXPECT_EQ(answers_.snapshot_files.count("before/meminfo"), 1u);
}

TEST_F(ScenarioTest, FilesThatAreNotThereAreNoReasonToStop) {
  EXPECT_EQ(Play({
                R"({"kind":"op","op":"read_file","path":"/none"})",
                R"({"kind":"op","op":"unlink","path":"/none"})",
                R"({"kind":"op","op":"create_file","path":"/e/a","kib":64,"fs":"ext4"})",
                R"({"kind":"op","op":"create_file","path":"/e/a","kib":32,"fs":"ext4"})",
                R"({"kind":"op","op":"read_file","path":"/e/a"})",
                R"({"kind":"op","op":"swapon","device":"/dev/none","priority":40000})",
                R"({"kind":"op","op":"swapoff","device":"/dev/none"})",
                R"({"kind":"op","op":"start","process":"p"})",
                R"({"kind":"op","op":"mmap","process":"p","kib":64,"kind_of":"file_shared","file":"/none","region":0})",
                R"({"kind":"op","op":"touch","process":"p","region":0,"write":true,"kib":64,"offset_kib":0})",
                R"({"kind":"op","op":"punch","process":"p","region":0,"every":2})",
                R"({"kind":"op","op":"snapshot_cgroup","cgroup":"","name":"before"})",
            }),
            absl::OkStatus());
  EXPECT_THAT(answers_.results, ElementsAre());
  EXPECT_THAT(answers_.snapshot_files.at("before/cgroup--cgroup.procs"), HasSubstr("1\n"));
}

// Nobody handles a signal in a worker.
TEST_F(ScenarioTest, WhoTouchesWhatIsNotThereDies) {
  ASSERT_EQ(Play({
                R"({"kind":"op","op":"start","process":"p"})",
                R"({"kind":"op","op":"mmap","process":"p","kib":64,"kind_of":"anon","region":0})",
                R"({"kind":"op","op":"munmap","process":"p","region":0,"kib":32,"offset_kib":0})",
                R"({"kind":"op","op":"touch","process":"p","region":0,"write":false,"kib":64,"offset_kib":0})",
                R"({"kind":"op","op":"end","process":"p"})",
            }),
            absl::OkStatus());
  ASSERT_EQ(answers_.results.size(), 3u);
  EXPECT_EQ(answers_.results[2], ordered_json::parse(R"({"kind":"result","process":"p","killed":true})"));
}

TEST_F(ScenarioTest, HeadersMayLackWhatNobodyNeeds) {
  ordered_json header = Header();
  for (const char* key : {"baseline", "swap_devices", "files", "page_size"}) header.erase(key);
  for (ordered_json& zone : header["zones"]) {
    for (const char* key : {"free_at_start", "cma", "min", "low", "high", "node"}) zone.erase(key);
  }
  header["new"] = 1;
  EXPECT_EQ(Play({R"({"kind":"op","op":"snapshot","name":"before","new":2})"}, header), absl::OkStatus());
  EXPECT_THAT(answers_.snapshot_files.at("before/meminfo"), HasSubstr("MemTotal:          81532 kB\n"));
}

}  // namespace
}  // namespace mmlab
