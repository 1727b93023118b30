#include "server/metrics/server_metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "prometheus/gauge.h"
#include "server/metrics/host_metrics.h"
#include "server/metrics/process_metrics.h"

namespace mmlab {
namespace {

const prometheus::Histogram::BucketBoundaries& SecondsBuckets() {
  static const auto* const kBuckets = new prometheus::Histogram::BucketBoundaries{
      0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
  return *kBuckets;
}

double Seconds(std::chrono::nanoseconds took) { return std::chrono::duration<double>(took).count(); }

}  // namespace

ServerMetrics::ServerMetrics(const Host& host, const BuildInfo& build)
    : host_(host),
      http_requests_(
          prometheus::BuildCounter().Name("mmlab_http_requests_total").Help("Requests answered on the HTTP port.").Register(registry_)),
      http_seconds_(prometheus::BuildHistogram()
                        .Name("mmlab_http_request_duration_seconds")
                        .Help("Time from a request's head to the end of its answer.")
                        .Register(registry_)),
      probe_seconds_(prometheus::BuildHistogram()
                         .Name("mmlab_probe_duration_seconds")
                         .Help("Time to collect and write one machine's probe.")
                         .Register(registry_)
                         .Add({}, SecondsBuckets())) {
  prometheus::BuildGauge()
      .Name("mmlab_build_info")
      .Help("Constant 1, labelled with what this server was built from.")
      .Register(registry_)
      .Add({{"version", build.version}, {"revision", build.revision}, {"compiler", build.compiler}, {"grpc_version", build.grpc_version}})
      .Set(1);
}

void ServerMetrics::DeclareHandler(absl::string_view handler) {
  http_requests_.Add({{"handler", std::string(handler)}, {"code", "200"}});
  http_seconds_.Add({{"handler", std::string(handler)}}, SecondsBuckets());
}

void ServerMetrics::OnHttpRequest(absl::string_view handler, int code, std::chrono::nanoseconds took) {
  http_requests_.Add({{"handler", std::string(handler)}, {"code", absl::StrCat(code)}}).Increment();
  http_seconds_.Add({{"handler", std::string(handler)}}, SecondsBuckets()).Observe(Seconds(took));
}

void ServerMetrics::OnProbe(std::chrono::nanoseconds took) { probe_seconds_.Observe(Seconds(took)); }

Families ServerMetrics::Collect() const {
  Families families = registry_.Collect();
  for (prometheus::MetricFamily& family :
       families) {  // The library keeps samples in a hash table: a page that changes only where values do.
    std::sort(family.metric.begin(), family.metric.end(), [](const auto& a, const auto& b) { return a.label < b.label; });
  }
  Append(families, rpc_.Collect());
  Append(families, HostMetrics(host_));
  Append(families, ProcessMetrics());
  return families;
}

}  // namespace mmlab
