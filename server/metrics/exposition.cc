#include "server/metrics/exposition.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "prometheus/text_serializer.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily Family(std::string name, std::string help, MetricType type) {
  MetricFamily family;
  family.name = std::move(name);
  family.help = std::move(help);
  family.type = type;
  return family;
}

MetricFamily WithSample(MetricFamily family, double value) {
  AddSample(family, {}, value);
  return family;
}

}  // namespace

MetricFamily CounterFamily(std::string name, std::string help) { return Family(std::move(name), std::move(help), MetricType::Counter); }
MetricFamily GaugeFamily(std::string name, std::string help) { return Family(std::move(name), std::move(help), MetricType::Gauge); }
MetricFamily UntypedFamily(std::string name, std::string help) { return Family(std::move(name), std::move(help), MetricType::Untyped); }
MetricFamily HistogramFamily(std::string name, std::string help) { return Family(std::move(name), std::move(help), MetricType::Histogram); }

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

MetricFamily Counter(std::string name, std::string help, double value) {
  return WithSample(CounterFamily(std::move(name), std::move(help)), value);
}
MetricFamily Gauge(std::string name, std::string help, double value) {
  return WithSample(GaugeFamily(std::move(name), std::move(help)), value);
}
MetricFamily Untyped(std::string name, std::string help, double value) {
  return WithSample(UntypedFamily(std::move(name), std::move(help)), value);
}

void Append(Families& to, Families from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

std::string Exposition(Families families) {
  families.erase(std::remove_if(families.begin(), families.end(), [](const MetricFamily& family) { return family.metric.empty(); }),
                 families.end());
  std::sort(families.begin(), families.end(), [](const MetricFamily& a, const MetricFamily& b) { return a.name < b.name; });
  families.erase(
      std::unique(families.begin(), families.end(), [](const MetricFamily& a, const MetricFamily& b) { return a.name == b.name; }),
      families.end());
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace mmlab
