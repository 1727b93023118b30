// What holds in every answer of the probe, after each step of a random program, for machines of all layouts.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/machine/machine.h"
#include "server/metrics/collector.h"
#include "server/metrics/probe.h"
#include "tests/unit/machine/preset_specs.h"
#include "tests/unit/machine/random_program.h"

namespace mmlab {
namespace {

constexpr double kPage = 4096;

// The samples of one answer, by name and labels.
class Answer {
 public:
  explicit Answer(const Machine& machine) : Answer(machine, All()) {}
  Answer(const Machine& machine, const std::vector<const Collector*>& collectors) {
    families_ = CollectMachine(collectors, [&](absl::FunctionRef<void(const Machine&)> read) { read(machine); });
    for (const prometheus::MetricFamily& family : families_) {
      for (const prometheus::ClientMetric& metric : family.metric) {
        const double value = family.type == prometheus::MetricType::Counter ? metric.counter.value
                             : family.type == prometheus::MetricType::Gauge ? metric.gauge.value
                                                                            : metric.untyped.value;
        std::string key = family.name;
        for (const auto& label : metric.label) absl::StrAppend(&key, " ", label.name, "=", label.value);
        samples_[key] = value;
        if (IsCounter(family)) counters_[key] = value;
      }
    }
  }

  static std::vector<const Collector*> All() {
    std::vector<const Collector*> collectors;
    for (const Collector& collector : Collectors()) collectors.push_back(&collector);
    return collectors;
  }

  const std::map<std::string, double>& samples() const { return samples_; }
  bool has(const std::string& key) const { return samples_.contains(key); }
  double value(const std::string& key) const {
    const auto it = samples_.find(key);
    if (it == samples_.end()) {
      ADD_FAILURE() << "no sample " << key;
      return 0;
    }
    return it->second;
  }
  double memory(const std::string& field) const { return value("node_memory_" + field); }
  // The samples of one family: labels and value.
  std::map<std::string, double> all(const std::string& name) const {
    std::map<std::string, double> found;
    for (auto it = samples_.lower_bound(name + " "); it != samples_.end() && absl::StartsWith(it->first, name + " "); ++it) {
      found[it->first.substr(name.size() + 1)] = it->second;
    }
    return found;
  }
  const std::map<std::string, double>& counters() const { return counters_; }

 private:
  static bool IsCounter(const prometheus::MetricFamily& family) {
    if (family.type == prometheus::MetricType::Counter) return true;
    // Of /proc/vmstat: what is no amount.
    return absl::StartsWith(family.name, "node_vmstat_") && !absl::StartsWith(family.name, "node_vmstat_nr_") &&
           family.name != "node_vmstat_workingset_nodes";
  }

  Families families_;
  std::map<std::string, double> samples_;
  std::map<std::string, double> counters_;
};

void ExpectZonesAddUp(const Answer& answer) {
  double free = 0, managed = 0;
  for (const auto& [zone, pages] : answer.all("node_zoneinfo_nr_free_pages")) free += pages;
  for (const auto& [zone, pages] : answer.all("node_zoneinfo_managed_pages")) managed += pages;
  EXPECT_EQ(free * kPage, answer.memory("MemFree_bytes")) << "identity 1";
  EXPECT_EQ(managed * kPage, answer.memory("MemTotal_bytes")) << "identity 3";
  for (const auto& [zone, most] : answer.all("node_zoneinfo_managed_pages")) {
    const auto mark = [&, zone = zone](const char* name) { return answer.value(absl::StrCat("node_zoneinfo_", name, "_pages ", zone)); };
    EXPECT_LE(mark("min"), mark("low")) << "identity 7";
    EXPECT_LE(mark("low"), mark("high")) << "identity 7";
    EXPECT_LE(most, mark("present")) << "identity 7";
    EXPECT_LE(mark("present"), mark("spanned")) << "identity 7";
  }
}

void ExpectTotalsAddUp(const Answer& answer) {
  const auto kb = [&](const char* field) { return answer.memory(absl::StrCat(field, "_bytes")); };
  EXPECT_EQ(kb("Active"), kb("Active_anon") + kb("Active_file")) << "identity 4";
  EXPECT_EQ(kb("Inactive"), kb("Inactive_anon") + kb("Inactive_file")) << "identity 4";
  EXPECT_EQ(kb("Slab"), kb("SReclaimable") + kb("SUnreclaim")) << "identity 5";
  EXPECT_GE(kb("KReclaimable"), kb("SReclaimable")) << "identity 5";
  if (answer.has("node_memory_HighTotal_bytes")) {
    EXPECT_EQ(kb("MemTotal"), kb("HighTotal") + kb("LowTotal")) << "identity 6";
    EXPECT_EQ(kb("MemFree"), kb("HighFree") + kb("LowFree")) << "identity 6";
  }
  EXPECT_GE(answer.value("node_vmstat_pgfault"), answer.value("node_vmstat_pgmajfault")) << "identity 8";
  for (const char* resource : {"memory", "io"}) {
    const auto seconds = [&](const char* kind) {
      return answer.value(absl::StrCat("node_pressure_", resource, "_", kind, "_seconds_total"));
    };
    EXPECT_LE(seconds("stalled"), seconds("waiting")) << "identity 9";
  }
  EXPECT_LE(kb("MemAvailable"), kb("MemTotal")) << "identity 10";
  EXPECT_LE(kb("SwapFree"), kb("SwapTotal")) << "identity 10";
  EXPECT_LE(answer.memory("HugePages_Free"), answer.memory("HugePages_Total")) << "identity 10";
}

void ExpectSlabsFit(const Answer& answer) {
  double pages = 0;
  for (const auto& [slab, objects] : answer.all("node_slabinfo_objects")) {
    EXPECT_LE(answer.value("node_slabinfo_active_objects " + slab), objects) << "identity 11";
    pages += objects / answer.value("node_slabinfo_objects_per_slab " + slab) * answer.value("node_slabinfo_pages_per_slab " + slab);
  }
  EXPECT_LE(pages * kPage, answer.memory("Slab_bytes")) << "identity 11";
}

void ExpectCgroupsFit(const Answer& answer) {
  const std::map<std::string, double> usages = answer.all("container_memory_usage_bytes");
  for (const auto& [id, usage] : usages) {
    const double limit = answer.value("container_spec_memory_limit_bytes " + id);
    if (limit != 0) {
      EXPECT_LE(usage, limit) << "identity 12: " << id;
    }
    // "id=/a/b image= name=" lies in "id=/a image= name=".
    const size_t slash = id.substr(0, id.find(' ')).rfind('/');
    const auto parent = usages.find(id.substr(0, slash) + id.substr(id.find(' ')));
    if (parent != usages.end() && parent->first != id) {
      EXPECT_GE(parent->second, usage) << "identity 12: " << id;
    }
  }
}

class IdentitiesTest : public testing::TestWithParam<const char*> {};

TEST_P(IdentitiesTest, HoldAfterEveryStepOfARandomProgram) {
  auto machine = Machine::Boot(PresetSpec(GetParam())).value();
  RandomProgram program(3, *machine);
  std::map<std::string, double> before;
  for (int step = 0; step < 700 && !HasFailure(); ++step) {
    SCOPED_TRACE(step);
    const Operation operation = program.Next();
    program.Answered(operation, machine->Apply(operation));
    // CPUs add their part of the free pages to the zone's count once a second, as in the kernel: until then the two files differ.
    machine->Apply(op::AdvanceTime{1'000'000'000});
    const Answer answer(*machine);
    ExpectZonesAddUp(answer);
    ExpectTotalsAddUp(answer);
    ExpectSlabsFit(answer);
    ExpectCgroupsFit(answer);
    std::map<std::string, double> blocks;
    for (const auto& [labels, count] : answer.all("node_buddyinfo_blocks")) {
      const size_t size = labels.find(" size=");
      const size_t zone = labels.find(" zone=");
      const int order = std::stoi(labels.substr(size + 6, zone - size - 6));
      blocks[labels.substr(0, size) + labels.substr(zone)] += count * (1 << order);
    }
    EXPECT_EQ(blocks, answer.all("node_zoneinfo_nr_free_pages")) << "identity 2";
    for (const auto& [key, value] : answer.counters()) {
      const auto it = before.find(key);
      if (it == before.end()) continue;
      EXPECT_GE(value, it->second) << "identity 13: " << key << " fell";
    }
    before = answer.counters();
  }
}

TEST_P(IdentitiesTest, CollectorsSayAloneWhatTheySayTogether) {
  const auto machine = Machine::Boot(PresetSpec(GetParam())).value();
  const Answer together(*machine);
  for (const Collector* collector : Answer::All()) {
    SCOPED_TRACE(std::string(collector->name.data(), collector->name.size()));
    const Answer alone(*machine, {collector});
    for (const auto& [key, value] : alone.samples()) {
      if (absl::StartsWith(key, "node_scrape_collector_duration_seconds")) continue;
      EXPECT_EQ(value, together.value(key)) << key;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, IdentitiesTest, testing::Values("686-64M", "686-pae-1G", "arm64-128M"), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace mmlab
