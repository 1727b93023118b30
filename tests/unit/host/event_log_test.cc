#include "server/host/event_log.h"

#include "gtest/gtest.h"

namespace mmlab {
namespace {

using Format = EventLog::Format;

TEST(EventLogTest, WritesOneLineOfText) {
  EXPECT_EQ(EventLog::Line(Format::kText, "T", "info", "machine_created", {{"machine", "a"}, {"note", "two words"}, {"empty", ""}}),
            "T info machine_created machine=a note=\"two words\" empty=\"\"\n");
}

TEST(EventLogTest, WritesOneJsonObject) {
  EXPECT_EQ(EventLog::Line(Format::kJson, "T", "error", "e", {{"a", "say \"hi\"\n"}}),
            "{\"time\":\"T\",\"level\":\"error\",\"event\":\"e\",\"a\":\"say \\\"hi\\\"\\n\"}\n");
}

TEST(EventLogTest, NeverBreaksALine) {
  const std::string line = EventLog::Line(Format::kText, "T", "info", "e", {{"a", "x\ny\x01"}});
  EXPECT_EQ(line.find('\n'), line.size() - 1);
}

}  // namespace
}  // namespace mmlab
