// What holds between the samples of one probe, after every step of a random program.
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "server/metrics/probe.h"
#include "tests/unit/service/random_program.h"

namespace mmlab {
namespace {

constexpr int kLength = 250;
constexpr double kPage = 4096;

// The samples of an answer: {name with labels: value}.
class Samples {
 public:
  explicit Samples(const std::string& text) {
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      if (absl::StartsWith(line, "# TYPE ")) {
        const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
        if (words[3] == "counter" || absl::StartsWith(words[2], "node_vmstat_")) counters_.emplace(words[2]);
      }
      if (line[0] == '#') continue;
      const size_t space = line.rfind(' ');
      double value = 0;
      EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
      EXPECT_TRUE(values_.emplace(line.substr(0, space), value).second) << "twice: " << line;
    }
  }

  double operator[](const std::string& key) const {
    const auto found = values_.find(key);
    EXPECT_NE(found, values_.end()) << key;
    return found == values_.end() ? 0 : found->second;
  }
  double Memory(const std::string& field) const { return (*this)["node_memory_" + field + "_bytes"]; }
  bool Has(const std::string& key) const { return values_.count(key) != 0; }
  // {labels: value} of a metric.
  std::map<std::string, double> Of(const std::string& name) const {
    std::map<std::string, double> found;
    for (auto sample = values_.lower_bound(name + "{"); sample != values_.end() && absl::StartsWith(sample->first, name + "{"); ++sample) {
      found.emplace(sample->first.substr(name.size()), sample->second);
    }
    return found;
  }
  double Sum(const std::string& name) const {
    double sum = 0;
    for (const auto& [labels, value] : Of(name)) sum += value;
    return sum;
  }
  // Counters that are lower than they were.
  std::vector<std::string> FallenSince(const Samples& before) const {
    std::vector<std::string> fallen;
    for (const auto& [key, value] : values_) {
      if (counters_.count(key.substr(0, key.find('{'))) != 0 && !absl::StartsWith(key, "node_vmstat_nr_") && before.Has(key) &&
          value < before[key]) {
        fallen.push_back(key);
      }
    }
    return fallen;
  }

 private:
  std::map<std::string, double> values_;
  std::set<std::string> counters_;
};

void ExpectIdentities(const Samples& now) {
  const auto free = now.Of("node_zoneinfo_nr_free_pages");
  EXPECT_EQ(now.Sum("node_zoneinfo_nr_free_pages") * kPage, now.Memory("MemFree"));
  EXPECT_EQ(now.Sum("node_zoneinfo_managed_pages") * kPage, now.Memory("MemTotal"));
  std::map<std::string, double> blocks;
  for (const auto& [labels, count] : now.Of("node_buddyinfo_blocks")) {
    const size_t size = labels.find("size=\"");
    int order = 0;
    ASSERT_TRUE(absl::SimpleAtoi(labels.substr(size + 6, labels.find('"', size + 6) - size - 6), &order));
    blocks["{node=\"0\"," + labels.substr(labels.find("zone="))] += count * (1 << order);
  }
  EXPECT_EQ(blocks, free);
  EXPECT_EQ(now.Memory("Active"), now.Memory("Active_anon") + now.Memory("Active_file"));
  EXPECT_EQ(now.Memory("Inactive"), now.Memory("Inactive_anon") + now.Memory("Inactive_file"));
  EXPECT_EQ(now.Memory("Slab"), now.Memory("SReclaimable") + now.Memory("SUnreclaim"));
  EXPECT_GE(now.Memory("KReclaimable"), now.Memory("SReclaimable"));
  if (now.Has("node_memory_HighTotal_bytes")) {
    EXPECT_EQ(now.Memory("MemTotal"), now.Memory("HighTotal") + now.Memory("LowTotal"));
    EXPECT_EQ(now.Memory("MemFree"), now.Memory("HighFree") + now.Memory("LowFree"));
  }
  for (const auto& [zone, min] : now.Of("node_zoneinfo_min_pages")) {
    EXPECT_LE(min, now["node_zoneinfo_low_pages" + zone]);
    EXPECT_LE(now["node_zoneinfo_low_pages" + zone], now["node_zoneinfo_high_pages" + zone]);
    EXPECT_LE(now["node_zoneinfo_managed_pages" + zone], now["node_zoneinfo_present_pages" + zone]);
    EXPECT_LE(now["node_zoneinfo_present_pages" + zone], now["node_zoneinfo_spanned_pages" + zone]);
  }
  EXPECT_GE(now["node_vmstat_pgfault"], now["node_vmstat_pgmajfault"]);
  EXPECT_LE(now.Memory("MemAvailable"), now.Memory("MemTotal"));
  EXPECT_LE(now.Memory("SwapFree"), now.Memory("SwapTotal"));
  EXPECT_LE(now["node_memory_HugePages_Free"], now["node_memory_HugePages_Total"]);
  double slab = 0;
  for (const auto& [cache, objects] : now.Of("node_slabinfo_objects")) {
    EXPECT_LE(now["node_slabinfo_active_objects" + cache], objects);
    slab += objects / now["node_slabinfo_objects_per_slab" + cache] * now["node_slabinfo_pages_per_slab" + cache] * kPage;
  }
  EXPECT_LE(slab, now.Memory("Slab"));
  // Of the four levels only the two lowest are in PageTables.
  double lowest = now["mmlab_page_table_pages{level=\"pte\"}"];
  if (now.Has("mmlab_page_table_pages{level=\"pmd\"}")) lowest += now["mmlab_page_table_pages{level=\"pmd\"}"];
  EXPECT_EQ(lowest * kPage, now.Memory("PageTables"));
  EXPECT_EQ(now.Sum("namedprocess_namegroup_num_procs"), now["node_processes_pids"]);
  EXPECT_EQ(now.Sum("namedprocess_namegroup_num_threads"), now["node_processes_threads"]);
}

class ExpositionIdentitiesTest : public testing::TestWithParam<const char*> {};

TEST_P(ExpositionIdentitiesTest, HoldAfterEveryStep) {
  TestServer server;
  const std::string machine = server.CreateMachine("m", GetParam());
  HttpRequest request;
  request.query.emplace("target", machine);
  request.query.emplace("collect", "meminfo,vmstat_all,buddyinfo,zoneinfo,slabinfo,mmlab,processes,process,stat");
  Samples before(AnswerProbe(server.server().host(), request).body);
  v1::AdvanceTimeRequest tick;  // CPUs add their part of the free pages to the zone's count once a second, as in the kernel.
  tick.set_nanoseconds(1'000'000'000);
  const int32_t pid = server.Exec(machine);
  for (const v1::Operation& operation : RandomProgram(/*seed=*/7, kLength, pid + 1)) {
    v1::ExecuteBatchRequest batch;
    batch.set_machine(machine);
    *batch.add_operations() = operation;
    *batch.add_operations()->mutable_advance_time() = tick;
    v1::ExecuteBatchResponse response;
    ASSERT_TRUE(Call(server.operations, &v1::OperationService::Stub::ExecuteBatch, batch, &response).ok());
    const HttpResponse page = AnswerProbe(server.server().host(), request);
    ASSERT_EQ(page.status, 200);
    const Samples now(page.body);
    ExpectIdentities(now);
    EXPECT_THAT(now.FallenSince(before), testing::IsEmpty());
    ASSERT_FALSE(HasFailure()) << "after " << operation.ShortDebugString();
    before = now;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, ExpositionIdentitiesTest, testing::Values("686-64M", "686-pae-1G", "arm64-128M"), [](const auto& preset) {
  return absl::StrReplaceAll(preset.param, {{"-", "_"}});
});

}  // namespace
}  // namespace mmlab
