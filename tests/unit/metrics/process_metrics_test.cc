#include "server/metrics/process_metrics.h"

#include <gtest/gtest.h>

#include <ctime>
#include <map>
#include <string>

namespace mmlab {
namespace {

TEST(ProcessMetrics, AllAreThereAndPlausible) {
  std::map<std::string, double> values;
  for (const auto& family : ProcessMetrics()) {
    ASSERT_EQ(family.metric.size(), 1u) << family.name;
    values[family.name] = family.metric[0].gauge.value + family.metric[0].counter.value;
  }
  EXPECT_GE(values.at("process_cpu_seconds_total"), 0);
  EXPECT_GE(values.at("process_threads"), 1);
  EXPECT_GT(values.at("process_resident_memory_bytes"), 1e6);
  EXPECT_GE(values.at("process_virtual_memory_bytes"), values.at("process_resident_memory_bytes"));
  EXPECT_GE(values.at("process_virtual_memory_max_bytes"), values.at("process_virtual_memory_bytes"));
  EXPECT_GE(values.at("process_open_fds"), 3);
  EXPECT_GE(values.at("process_max_fds"), values.at("process_open_fds"));
  EXPECT_NEAR(values.at("process_start_time_seconds"), static_cast<double>(std::time(nullptr)), 600);
  EXPECT_EQ(values.size(), 8u);
}

}  // namespace
}  // namespace mmlab
