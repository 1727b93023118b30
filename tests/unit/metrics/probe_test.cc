#include "server/metrics/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "mmlab/v1/machine.pb.h"
#include "server/base/check.h"
#include "server/host/host.h"
#include "server/metrics/discovery.h"
#include "server/metrics/server_metrics.h"

namespace mmlab {
namespace {

using testing::HasSubstr;
using testing::Not;

HttpRequest Request(const std::vector<std::pair<std::string, std::string>>& query, const std::string& host = "lab:9464") {
  HttpRequest request;
  request.query.insert(query.begin(), query.end());
  request.headers.emplace("host", host);
  return request;
}

class ProbeTest : public testing::Test {
 protected:
  ProbeTest() {
    spec_.set_preset("686-64M");
    Create("one", {{"course", "os-1"}});
  }
  void Create(const std::string& id, const std::map<std::string, std::string>& labels) {
    const auto made = host_.Create({id, &spec_, labels});
    ASSERT_TRUE(made.ok()) << made.status();
  }
  HttpResponse Probe(const std::vector<std::pair<std::string, std::string>>& query) { return AnswerProbe(host_, Request(query)); }
  HttpResponse Discover(const std::vector<std::pair<std::string, std::string>>& query) {
    return AnswerDiscovery(host_, Request(query), "");
  }

  v1::MachineSpec spec_;
  Host host_;
};

TEST_F(ProbeTest, ShowsAMachineAsNodeExporterWould) {
  const HttpResponse page = Probe({{"target", "one"}});
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.content_type, "text/plain; version=0.0.4; charset=utf-8");
  for (const char* line : {"\nnode_memory_MemTotal_bytes ", "\nnode_vmstat_pgfault ", "\nnode_buddyinfo_blocks{",
                           "\nnode_zoneinfo_nr_free_pages{", "nodename=\"one\"", "\nnode_time_seconds ", "\nmmlab_machine_info{",
                           "\nnode_scrape_collector_success{collector=\"meminfo\"} 1\n"}) {
    EXPECT_THAT(page.body, HasSubstr(line));
  }
  EXPECT_THAT(page.body, Not(HasSubstr("node_network")));
}

TEST_F(ProbeTest, RefusesWhatIsNoQuestion) {
  EXPECT_EQ(Probe({}).status, 400);
  EXPECT_EQ(Probe({{"target", ""}}).status, 400);
  EXPECT_EQ(Probe({{"target", "one"}, {"target", "two"}}).status, 400);
  EXPECT_EQ(Probe({{"target", "two"}}).status, 404);
  EXPECT_EQ(Probe({{"target", "machines/one"}}).status, 200);
  EXPECT_EQ(Probe({{"target", "one"}, {"collect[]", "nosuch"}}).status, 400);
}

TEST_F(ProbeTest, MissesADeadlineThatIsOver) {
  HttpRequest request = Request({{"target", "one"}});
  request.headers.emplace("x-prometheus-scrape-timeout-seconds", "0");
  EXPECT_EQ(AnswerProbe(host_, request).status, 503);
  request.headers.erase("x-prometheus-scrape-timeout-seconds");
  request.headers.emplace("x-prometheus-scrape-timeout-seconds", "nonsense");
  EXPECT_EQ(AnswerProbe(host_, request).status, 200);
}

TEST_F(ProbeTest, NoFamilyComesTwice) {
  const HttpResponse page = Probe({{"target", "one"}, {"collect", "vmstat,vmstat_all"}});
  const std::string type = "# TYPE node_vmstat_pgfault ";
  const size_t first = page.body.find(type);
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(page.body.find(type, first + 1), std::string::npos);
}

TEST_F(ProbeTest, ACollectorThatFindsTheMachineBrokenSaysSo) {
  const Collector broken = {"broken", true, [](const Machine&, MachineSnapshot&) -> bool { MMLAB_CHECK(false && "accounting"); },
                            [](const MachineSnapshot&) -> Families { return {Gauge("never", "Never.", 1)}; }};
  const std::vector<const Collector*> collectors = {&broken, FindCollector("time")};
  const auto hosted = host_.Find("one");
  const std::string text = Exposition(CollectMachine(collectors, [&](absl::FunctionRef<void(const Machine&)> read) {
    const MachineReader reader = (*hosted)->Read();
    read(reader.machine());
  }));
  EXPECT_THAT(text, HasSubstr("\nnode_scrape_collector_success{collector=\"broken\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_scrape_collector_success{collector=\"time\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nnode_time_seconds "));
  EXPECT_THAT(text, Not(HasSubstr("never")));
}

TEST_F(ProbeTest, DiscoveryListsMachinesWithTheirParameters) {
  EXPECT_EQ(Discover({}).body, R"([{"targets":["lab:9464"],"labels":{"__metrics_path__":"/probe","__param_target":"one","instance":"one",)"
                               R"("__meta_mmlab_arch":"x86_32","__meta_mmlab_state":"running","__meta_mmlab_label_course":"os-1"}}])");
  EXPECT_THAT(Discover({{"collect", "meminfo"}}).body, HasSubstr(R"("__param_collect":"meminfo")"));
  EXPECT_THAT(AnswerDiscovery(host_, Request({}), "public.example:80").body, HasSubstr(R"("targets":["public.example:80"])"));
  ASSERT_TRUE(host_.Delete("one").ok());
  EXPECT_EQ(Discover({}).body, "[]");
  EXPECT_EQ(Discover({}).content_type, "application/json");
}

TEST_F(ProbeTest, DiscoveryKeysBecomeLabelNames) {
  Create("two", {{"my-key", "a \"quoted\" value"}});
  EXPECT_THAT(Discover({{"label", "my-key=a \"quoted\" value"}}).body, HasSubstr(R"("__meta_mmlab_label_my_key":"a \"quoted\" value")"));
}

struct DiscoveryCase {
  const char* name;
  std::vector<std::pair<std::string, std::string>> query;
  int status;
  bool found;
};
class DiscoveryFilterTest : public ProbeTest, public testing::WithParamInterface<DiscoveryCase> {};

TEST_P(DiscoveryFilterTest, FindsTheMachineOrNot) {
  const HttpResponse answer = Discover(GetParam().query);
  EXPECT_EQ(answer.status, GetParam().status);
  if (answer.status == 200) {
    EXPECT_EQ(answer.body != "[]", GetParam().found) << answer.body;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Filters, DiscoveryFilterTest,
    testing::Values(DiscoveryCase{"Arch", {{"arch", "x86_32"}}, 200, true}, DiscoveryCase{"OtherArch", {{"arch", "arm64"}}, 200, false},
                    DiscoveryCase{"NoArch", {{"arch", "mips"}}, 400, false}, DiscoveryCase{"State", {{"state", "running"}}, 200, true},
                    DiscoveryCase{"OtherState", {{"state", "quarantined"}}, 200, false},
                    DiscoveryCase{"NoState", {{"state", "x"}}, 400, false}, DiscoveryCase{"Label", {{"label", "course=os-1"}}, 200, true},
                    DiscoveryCase{"OtherValue", {{"label", "course=os"}}, 200, false},
                    DiscoveryCase{"OneOfTwoLabels", {{"label", "course=os-1"}, {"label", "a=b"}}, 200, false},
                    DiscoveryCase{"NoValue", {{"label", "course"}}, 400, false}, DiscoveryCase{"Tenant", {{"tenant", "t"}}, 200, false},
                    DiscoveryCase{"WholeShard", {{"shard", "0"}, {"total_shards", "1"}}, 200, true},
                    DiscoveryCase{"ShardAlone", {{"shard", "0"}}, 400, false},
                    DiscoveryCase{"TotalAlone", {{"total_shards", "2"}}, 400, false},
                    DiscoveryCase{"NoShards", {{"shard", "0"}, {"total_shards", "0"}}, 400, false},
                    DiscoveryCase{"BadCollector", {{"collect", "nosuch"}}, 400, false}),
    [](const auto& one) { return one.param.name; });

TEST_F(ProbeTest, DiscoveryTrustsNoHostHeader) {
  for (const char* host : {"", "a b", "evil\"", "x\n", "h/path", "\xff"}) {
    EXPECT_EQ(AnswerDiscovery(host_, Request({}, host), "").status, 400) << host;
  }
  EXPECT_EQ(AnswerDiscovery(host_, Request({}, "[::1]:9464"), "").status, 200);
}

TEST(Shards, AreTheSameForEverAndPartition) {
  EXPECT_EQ(ShardOf("one", 1), 0u);
  EXPECT_EQ(ShardOf("m", 7), ShardOf("m", 7));
  EXPECT_EQ(ShardOf("machine-1", 1000), 0x60f8ad244c8fb38ULL % 1000) << "FNV-1a of the id; a change moves every machine";
  std::vector<int> sizes(4);
  for (int i = 0; i < 1000; ++i) ++sizes[ShardOf("m" + std::to_string(i), 4)];
  for (const int size : sizes) EXPECT_GT(size, 150);
}

TEST_F(ProbeTest, ServerMetricsTellOfTheHost) {
  ServerMetrics metrics(host_, {"1.2.3", "abc", "gcc", "1.51"});
  metrics.DeclareHandler("/probe");
  metrics.OnHttpRequest("/probe", 404, std::chrono::milliseconds(3));
  const std::string text = Exposition(metrics.Collect());
  for (const char* line :
       {"\nmmlab_build_info{compiler=\"gcc\",grpc_version=\"1.51\",revision=\"abc\",version=\"1.2.3\"} 1\n",
        "\nmmlab_machines{arch=\"x86_32\",state=\"running\"} 1\n", "\nmmlab_machines{arch=\"arm64\",state=\"quarantined\"} 0\n",
        "\nmmlab_machines_created_total{arch=\"x86_32\"} 1\n", "\nmmlab_machines_created_total{arch=\"arm64\"} 0\n",
        "\nmmlab_machines_deleted_total{reason=\"request\"} 0\n", "\nmmlab_operations_total{operation=\"mmap\"} 0\n",
        "\nmmlab_operation_errors_total{operation=\"alloc_pages\"} 0\n", "\nmmlab_http_requests_total{code=\"200\",handler=\"/probe\"} 0\n",
        "\nmmlab_http_requests_total{code=\"404\",handler=\"/probe\"} 1\n", "\nmmlab_worker_threads_busy 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  for (const char* part : {"journal", "snapshot", "tenant", "quota"}) EXPECT_THAT(text, Not(HasSubstr(std::string("mmlab_") + part)));
}

}  // namespace
}  // namespace mmlab
