#include "server/metrics/exposition.h"

#include <algorithm>
#include <iterator>

#include "prometheus/text_serializer.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily Family(absl::string_view name, absl::string_view help, MetricType type) {
  MetricFamily family;
  family.name = std::string(name);
  family.help = std::string(help);
  family.type = type;
  return family;
}

MetricFamily WithSample(MetricFamily family, double value) {
  AddSample(family, {}, value);
  return family;
}

}  // namespace

MetricFamily CounterFamily(absl::string_view name, absl::string_view help) { return Family(name, help, MetricType::Counter); }
MetricFamily GaugeFamily(absl::string_view name, absl::string_view help) { return Family(name, help, MetricType::Gauge); }
MetricFamily UntypedFamily(absl::string_view name, absl::string_view help) { return Family(name, help, MetricType::Untyped); }
MetricFamily HistogramFamily(absl::string_view name, absl::string_view help) { return Family(name, help, MetricType::Histogram); }

void AddSample(MetricFamily& family, Labels labels, double value) {
  prometheus::ClientMetric& metric = family.metric.emplace_back();
  metric.label = std::move(labels);
  switch (family.type) {
    case MetricType::Counter:
      metric.counter.value = value;
      return;
    case MetricType::Gauge:
      metric.gauge.value = value;
      return;
    case MetricType::Untyped:
      metric.untyped.value = value;
      return;
    default:
      MMLAB_CHECK(false && "a sample of one value");
  }
}

MetricFamily Counter(absl::string_view name, absl::string_view help, double value) { return WithSample(CounterFamily(name, help), value); }
MetricFamily Gauge(absl::string_view name, absl::string_view help, double value) { return WithSample(GaugeFamily(name, help), value); }
MetricFamily Untyped(absl::string_view name, absl::string_view help, double value) { return WithSample(UntypedFamily(name, help), value); }

void Append(Families& to, Families from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

std::string Exposition(Families families) {
  families.erase(std::remove_if(families.begin(), families.end(), [](const MetricFamily& family) { return family.metric.empty(); }),
                 families.end());
  std::sort(families.begin(), families.end(), [](const MetricFamily& a, const MetricFamily& b) { return a.name < b.name; });
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace mmlab
