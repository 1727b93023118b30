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

prometheus::MetricFamily CounterFamily(std::string name, std::string help);
prometheus::MetricFamily GaugeFamily(std::string name, std::string help);
prometheus::MetricFamily UntypedFamily(std::string name, std::string help);
prometheus::MetricFamily HistogramFamily(std::string name, std::string help);

// Adds a sample of the family's type; labels in the order in which they are to be printed. Not for histograms.
void AddSample(prometheus::MetricFamily& family, LabelList labels, double value);
void AddSampleOf(prometheus::MetricFamily& family, Labels labels, double value);

// Families of one sample without labels.
prometheus::MetricFamily Counter(std::string name, std::string help, double value);
prometheus::MetricFamily Gauge(std::string name, std::string help, double value);
prometheus::MetricFamily Untyped(std::string name, std::string help, double value);

void Append(Families& to, Families from);

// Sorts families by name, as node_exporter prints them, and writes them by prometheus-cpp's serialiser. Families without samples are left
// out; of two with one name (vmstat_all has what vmstat has) one is written.
std::string Exposition(Families families);

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_EXPOSITION_H_
