// cAdvisor's metrics of memory cgroups, from the files of cgroup v2: its names and types; HELP says the same in our words.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "server/metrics/collector.h"

namespace mmlab {
namespace {

struct Metric {
  const char* file;
  const char* key;  // The line's first word; empty: the file is one number.
  const char* name;
  const char* help;
};

constexpr Metric kGauges[] = {
    {"memory.current", "", "container_memory_usage_bytes", "Current memory usage in bytes, with all kinds of memory."},
    {"memory.peak", "", "container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes."},
    {"memory.swap.current", "", "container_memory_swap", "Container swap usage in bytes."},
    {"memory.stat", "anon", "container_memory_rss", "Size of RSS in bytes."},
    {"memory.stat", "file", "container_memory_cache", "Number of bytes of page cache memory."},
    {"memory.stat", "file_mapped", "container_memory_mapped_file", "Size of memory mapped files in bytes."},
    {"memory.stat", "kernel", "container_memory_kernel_usage", "Size of kernel memory allocated in bytes."},
    {"memory.stat", "active_file", "container_memory_total_active_file_bytes", "Bytes of file pages on the active list."},
    {"memory.stat", "inactive_file", "container_memory_total_inactive_file_bytes", "Bytes of file pages on the inactive list."},
    {"memory.stat", "file_dirty", "container_memory_file_dirty_bytes", "Bytes of dirty file pages."},
    {"memory.stat", "file_writeback", "container_memory_file_writeback_bytes", "Bytes of file pages under writeback."},
    {"memory.max", "", "container_spec_memory_limit_bytes", "Memory limit for the container, 0 for none."},
    {"memory.swap.max", "", "container_spec_memory_swap_limit_bytes", "Memory swap limit for the container, 0 for none."},
    {"memory.min", "", "container_spec_memory_reservation_limit_bytes", "Memory that is not reclaimed, 0 for none."},
};
constexpr Metric kCounters[] = {
    {"memory.stat", "pgscan", "container_memory_pgscan_total", "Pages scanned by reclaim."},
    {"memory.stat", "pgsteal", "container_memory_pgsteal_total", "Pages reclaimed."},
    {"memory.stat", "workingset_refault_anon", "container_memory_workingset_refault_anon_total",
     "Refaults of previously evicted anonymous pages."},
    {"memory.stat", "workingset_refault_file", "container_memory_workingset_refault_file_total",
     "Refaults of previously evicted file pages."},
    {"memory.events", "max", "container_memory_failcnt", "Number of memory usage hits limits."},
    {"memory.events", "high", "container_memory_events_high_total", "Times that usage went over memory.high."},
    {"memory.events", "max", "container_memory_events_max_total", "Times that usage was about to go over memory.max."},
    {"memory.events", "oom_kill", "container_oom_events_total", "Count of out of memory events observed for the container."},
};

Labels LabelsOf(const CgroupSample& cgroup) { return {{"id", cgroup.path}, {"image", ""}, {"name", ""}}; }

// The number behind a key, or the whole file's; "max" is 0. Nothing: no such file or line.
std::optional<double> ValueOf(const CgroupSample& cgroup, absl::string_view file, absl::string_view key) {
  const auto found = cgroup.files.find(std::string(file));
  if (found == cgroup.files.end()) return std::nullopt;
  for (const absl::string_view line : absl::StrSplit(found->second, '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> words = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    if (!key.empty() && words.first != key) continue;
    const absl::string_view number = key.empty() ? words.first : words.second;
    double value = 0;
    if (number == "max") return 0;
    if (absl::SimpleAtod(number, &value)) return value;
  }
  return std::nullopt;
}

// total= of memory.pressure, in seconds.
std::optional<double> StallSeconds(const CgroupSample& cgroup, absl::string_view kind) {
  const auto found = cgroup.files.find("memory.pressure");
  if (found == cgroup.files.end()) return std::nullopt;
  for (const absl::string_view line : absl::StrSplit(found->second, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, "total=");
    double microseconds = 0;
    if (parts.size() == 2 && line.substr(0, kind.size()) == kind && absl::SimpleAtod(parts[1], &microseconds)) return microseconds / 1e6;
  }
  return std::nullopt;
}

template <typename Value>
prometheus::MetricFamily OfAll(const MachineSnapshot& snapshot, prometheus::MetricFamily family, Value value) {
  for (const CgroupSample& cgroup : snapshot.cgroups) {
    if (const std::optional<double> sample = value(cgroup)) AddSampleOf(family, LabelsOf(cgroup), *sample);
  }
  return family;
}

prometheus::MetricFamily Failures(const MachineSnapshot& snapshot) {
  auto family = CounterFamily("container_memory_failures_total", "Cumulative count of memory allocation failures.");
  for (const CgroupSample& cgroup : snapshot.cgroups) {
    for (const char* type : {"pgfault", "pgmajfault"}) {
      const std::optional<double> value = ValueOf(cgroup, "memory.stat", type);
      if (!value) continue;
      for (const char* scope : {"container", "hierarchy"}) {  // The file counts for the whole subtree; cAdvisor gives it as both.
        Labels labels = LabelsOf(cgroup);
        labels.insert(labels.begin(), {"failure_type", type});
        labels.push_back({"scope", scope});
        AddSampleOf(family, std::move(labels), *value);
      }
    }
  }
  return family;
}

std::optional<double> LinesOf(const CgroupSample& cgroup, const char* file) {
  const auto found = cgroup.files.find(file);
  if (found == cgroup.files.end()) return std::nullopt;
  return static_cast<double>(std::count(found->second.begin(), found->second.end(), '\n'));
}

}  // namespace

Families CollectCgroup(const MachineSnapshot& snapshot) {
  Families families;
  const auto add = [&](prometheus::MetricFamily family, auto value) { families.push_back(OfAll(snapshot, std::move(family), value)); };
  for (const Metric& metric : kGauges) {
    add(GaugeFamily(metric.name, metric.help), [&](const CgroupSample& cgroup) { return ValueOf(cgroup, metric.file, metric.key); });
  }
  for (const Metric& metric : kCounters) {
    add(CounterFamily(metric.name, metric.help), [&](const CgroupSample& cgroup) { return ValueOf(cgroup, metric.file, metric.key); });
  }
  add(GaugeFamily("container_memory_working_set_bytes", "Current working set in bytes: usage without inactive file pages."),
      [](const CgroupSample& cgroup) -> std::optional<double> {
        const std::optional<double> usage = ValueOf(cgroup, "memory.current", "");
        if (!usage) return std::nullopt;
        return std::max(0.0, *usage - ValueOf(cgroup, "memory.stat", "inactive_file").value_or(0));
      });
  add(CounterFamily("container_pressure_memory_waiting_seconds_total", "Time that some tasks waited for memory."),
      [](const CgroupSample& cgroup) { return StallSeconds(cgroup, "some"); });
  add(CounterFamily("container_pressure_memory_stalled_seconds_total", "Time that all tasks waited for memory."),
      [](const CgroupSample& cgroup) { return StallSeconds(cgroup, "full"); });
  add(GaugeFamily("container_processes", "Number of processes running inside the container."),
      [](const CgroupSample& cgroup) { return LinesOf(cgroup, "cgroup.procs"); });
  add(GaugeFamily("container_threads", "Number of threads running inside the container."),
      [](const CgroupSample& cgroup) { return LinesOf(cgroup, "cgroup.threads"); });
  families.push_back(Failures(snapshot));
  return families;
}

}  // namespace mmlab
