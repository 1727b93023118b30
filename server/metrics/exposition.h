#ifndef MMLAB_SERVER_METRICS_EXPOSITION_H_
#define MMLAB_SERVER_METRICS_EXPOSITION_H_

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "prometheus/metric_family.h"

namespace mmlab {

// The text format that every Prometheus reads.
inline constexpr char kExpositionContentType[] = "text/plain; version=0.0.4; charset=utf-8";

using Families = std::vector<prometheus::MetricFamily>;
using Labels = std::vector<prometheus::ClientMetric::Label>;
// The same in place, without a copy of the texts: {{"node", "0"}, {"zone", zone.name()}}.
using LabelList = std::initializer_list<std::pair<const char*, absl::string_view>>;

// Families and samples are made of what the page before, of the same thread, was made of: pages are alike, and memory is not asked for
// anew.
prometheus::MetricFamily CounterFamily(absl::string_view name, absl::string_view help);
prometheus::MetricFamily GaugeFamily(absl::string_view name, absl::string_view help);
prometheus::MetricFamily UntypedFamily(absl::string_view name, absl::string_view help);
prometheus::MetricFamily HistogramFamily(absl::string_view name, absl::string_view help);

// Adds a sample of the family's type; labels in the order in which they are to be printed. Not for histograms.
void AddSample(prometheus::MetricFamily& family, LabelList labels, double value);
void AddSampleOf(prometheus::MetricFamily& family, Labels labels, double value);

// Families of one sample without labels.
prometheus::MetricFamily Counter(absl::string_view name, absl::string_view help, double value);
prometheus::MetricFamily Gauge(absl::string_view name, absl::string_view help, double value);
prometheus::MetricFamily Untyped(absl::string_view name, absl::string_view help, double value);

void Append(Families& to, Families from);

// Sorts families by name, as node_exporter prints them, and writes them by prometheus-cpp's serialiser. Families without samples are left
// out; of two with one name (vmstat_all has what vmstat has) one is written.
std::string Exposition(Families families);

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_EXPOSITION_H_
