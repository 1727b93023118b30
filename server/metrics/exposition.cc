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

// What a page was made of, for the next one of this thread.
class Spares {
 public:
  static Spares& OfThread() {
    thread_local Spares spares;
    return spares;
  }

  // The n-th family of a page is like that of the page before.
  MetricFamily TakeFamily() {
    if (next_ >= families_.size()) return MetricFamily();
    return std::move(families_[next_++]);
  }
  Labels TakeLabels() {
    if (labels_.empty()) return Labels();
    Labels taken = std::move(labels_.back());
    labels_.pop_back();
    return taken;
  }
  // A page is written: `families` as they were made.
  void Keep(Families families) {
    for (MetricFamily& family : families) {
      // Nothing is kept for what a larger page needed.
      if (family.metric.capacity() > 2 * family.metric.size() + 8) family = MetricFamily();
      for (prometheus::ClientMetric& metric : family.metric) {
        if (labels_.size() < kMostLabels) labels_.push_back(std::move(metric.label));
      }
      family.metric.clear();
    }
    if (families.size() > kMostFamilies) families.resize(kMostFamilies);
    families_ = std::move(families);
    next_ = 0;
  }

 private:
  static constexpr size_t kMostFamilies = 512;
  static constexpr size_t kMostLabels = 1024;

  Families families_;
  size_t next_ = 0;  // Those before are in use.
  std::vector<Labels> labels_;
};

MetricFamily Family(absl::string_view name, absl::string_view help, MetricType type) {
  MetricFamily family = Spares::OfThread().TakeFamily();
  family.name.assign(name.data(), name.size());
  family.help.assign(help.data(), help.size());
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

MetricFamily CounterFamily(absl::string_view name, absl::string_view help) { return Family(name, help, MetricType::Counter); }
MetricFamily GaugeFamily(absl::string_view name, absl::string_view help) { return Family(name, help, MetricType::Gauge); }
MetricFamily UntypedFamily(absl::string_view name, absl::string_view help) { return Family(name, help, MetricType::Untyped); }
MetricFamily HistogramFamily(absl::string_view name, absl::string_view help) { return Family(name, help, MetricType::Histogram); }

void AddSample(MetricFamily& family, LabelList labels, double value) {
  Labels made = Spares::OfThread().TakeLabels();
  made.resize(labels.size());
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

MetricFamily Counter(absl::string_view name, absl::string_view help, double value) { return WithSample(CounterFamily(name, help), value); }
MetricFamily Gauge(absl::string_view name, absl::string_view help, double value) { return WithSample(GaugeFamily(name, help), value); }
MetricFamily Untyped(absl::string_view name, absl::string_view help, double value) { return WithSample(UntypedFamily(name, help), value); }

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
  std::vector<size_t> made_as;  // Of each of these.
  made_as.reserve(places.size());
  for (const Place& place : places) {
    MetricFamily& family = families[place.index];
    if (!sorted.empty() && sorted.back().name == family.name) continue;
    sorted.push_back(std::move(family));
    made_as.push_back(place.index);
  }
  std::string text = prometheus::TextSerializer().Serialize(sorted);
  for (size_t i = 0; i < sorted.size(); ++i) families[made_as[i]] = std::move(sorted[i]);
  Spares::OfThread().Keep(std::move(families));
  return text;
}

}  // namespace mmlab
