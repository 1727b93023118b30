#include "server/metrics/exposition.h"

#include <algorithm>
#include <array>
#include <cstdint>
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

// Where a family goes. Names share much of their beginnings: their first bytes are compared as numbers.
struct Place {
  std::array<uint64_t, 3> key;
  size_t index;
};

std::array<uint64_t, 3> KeyOf(const std::string& name) {
  std::array<uint64_t, 3> key{};
  for (size_t i = 0; i < std::min(name.size(), sizeof(key)); ++i) {
    key[i / 8] |= uint64_t{static_cast<unsigned char>(name[i])} << (56 - i % 8 * 8);
  }
  return key;
}

}  // namespace

MetricFamily CounterFamily(std::string name, std::string help) { return Family(std::move(name), std::move(help), MetricType::Counter); }
MetricFamily GaugeFamily(std::string name, std::string help) { return Family(std::move(name), std::move(help), MetricType::Gauge); }
MetricFamily UntypedFamily(std::string name, std::string help) { return Family(std::move(name), std::move(help), MetricType::Untyped); }
MetricFamily HistogramFamily(std::string name, std::string help) { return Family(std::move(name), std::move(help), MetricType::Histogram); }

void AddSample(MetricFamily& family, LabelList labels, double value) {
  Labels made(labels.size());
  size_t i = 0;
  for (const auto& [name, text] : labels) {
    made[i].name = name;
    made[i++].value.assign(text.data(), text.size());
  }
  AddSampleOf(family, std::move(made), value);
}

void AddSampleOf(MetricFamily& family, Labels labels, double value) {
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
  std::vector<Place> places;
  places.reserve(families.size());
  for (size_t i = 0; i < families.size(); ++i) {
    if (!families[i].metric.empty()) places.push_back(Place{KeyOf(families[i].name), i});
  }
  std::sort(places.begin(), places.end(), [&](const Place& a, const Place& b) {
    if (a.key != b.key) return a.key < b.key;
    const int order = families[a.index].name.compare(families[b.index].name);
    return order != 0 ? order < 0 : a.index < b.index;
  });
  Families sorted;
  sorted.reserve(places.size());
  for (const Place& place : places) {
    MetricFamily& family = families[place.index];
    if (sorted.empty() || sorted.back().name != family.name) sorted.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(sorted);
}

}  // namespace mmlab
