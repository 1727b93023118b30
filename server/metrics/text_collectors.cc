// node_exporter's collectors whose source is the text of a file below /proc: names, types and HELP of its releases.
#include <array>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/metrics/collector.h"

namespace mmlab {
namespace {

constexpr double kUserHz = 100;  // Of /proc/stat, on every architecture.

using Words = absl::InlinedVector<absl::string_view, 20>;

Words WordsOf(absl::string_view line) {
  constexpr auto is_blank = [](char c) { return c == ' ' || c == '\t'; };
  Words words;
  for (size_t at = 0; at < line.size();) {
    if (is_blank(line[at])) {
      ++at;
      continue;
    }
    const size_t start = at;
    while (at < line.size() && !is_blank(line[at])) ++at;
    words.push_back(line.substr(start, at - start));
  }
  return words;
}

double NumberOf(absl::string_view word) {
  double value = 0;
  return std::from_chars(word.data(), word.data() + word.size(), value).ec == std::errc() ? value : 0;
}

// total= of a line "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", which is in microseconds.
void AddPressure(const std::string& text, absl::string_view kind, const char* name, const char* help, Families& families) {
  constexpr absl::string_view kTotal = "total=";
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const Words words = WordsOf(line);
    if (words.empty() || words[0] != kind || !absl::StartsWith(words.back(), kTotal)) continue;
    families.push_back(Counter(name, help, NumberOf(words.back().substr(kTotal.size())) / 1e6));
  }
}

}  // namespace

Families CollectPressure(const MachineSnapshot& snapshot) {
  Families families;
  AddPressure(snapshot.pressure_cpu, "some", "node_pressure_cpu_waiting_seconds_total",
              "Total time in seconds that processes have waited for CPU time", families);
  AddPressure(snapshot.pressure_io, "some", "node_pressure_io_waiting_seconds_total",
              "Total time in seconds that processes have waited due to IO congestion", families);
  AddPressure(snapshot.pressure_io, "full", "node_pressure_io_stalled_seconds_total",
              "Total time in seconds no process could make progress due to IO congestion", families);
  AddPressure(snapshot.pressure_memory, "some", "node_pressure_memory_waiting_seconds_total",
              "Total time in seconds that processes have waited for memory", families);
  AddPressure(snapshot.pressure_memory, "full", "node_pressure_memory_stalled_seconds_total",
              "Total time in seconds no process could make progress due to memory congestion", families);
  AddPressure(snapshot.pressure_irq, "full", "node_pressure_irq_stalled_seconds_total",
              "Total time in seconds no process could make progress due to IRQ congestion", families);
  return families;
}

Families CollectCpu(const MachineSnapshot& snapshot) {
  constexpr std::array<const char*, 8> kModes = {"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"};
  auto seconds = CounterFamily("node_cpu_seconds_total", "Seconds the CPUs spent in each mode.");
  seconds.metric.reserve(4 * kModes.size());
  for (const absl::string_view line : absl::StrSplit(snapshot.stat, '\n')) {
    const Words words = WordsOf(line);
    if (words.size() <= kModes.size() || !absl::StartsWith(words[0], "cpu") || words[0] == "cpu") continue;
    for (size_t mode = 0; mode < kModes.size(); ++mode) {
      AddSample(seconds, {{"cpu", words[0].substr(3)}, {"mode", kModes[mode]}}, NumberOf(words[mode + 1]) / kUserHz);
    }
  }
  Families families;
  families.push_back(std::move(seconds));
  return families;
}

Families CollectKsmd(const MachineSnapshot& snapshot) {
  Families families;
  for (const auto& [file, text] : snapshot.ksm) {
    const std::string help = absl::StrCat("ksmd '", file, "' file.");
    const double value = NumberOf(text);
    if (file == absl::string_view("full_scans")) {
      families.push_back(Counter("node_ksmd_full_scans_total", help, value));
    } else if (file == absl::string_view("sleep_millisecs")) {
      families.push_back(Gauge("node_ksmd_sleep_seconds", help, value / 1000));
    } else {
      families.push_back(Gauge(absl::StrCat("node_ksmd_", file), help, value));
    }
  }
  return families;
}

Families CollectLoadavg(const MachineSnapshot& snapshot) {
  const Words words = WordsOf(snapshot.loadavg);
  if (words.size() < 3) return {};
  return {Gauge("node_load1", "1m load average.", NumberOf(words[0])), Gauge("node_load5", "5m load average.", NumberOf(words[1])),
          Gauge("node_load15", "15m load average.", NumberOf(words[2]))};
}

Families CollectSwap(const MachineSnapshot& snapshot) {
  auto size = GaugeFamily("node_swap_size_bytes", "Swap device size in bytes.");
  auto used = GaugeFamily("node_swap_used_bytes", "Swap device used in bytes.");
  auto priority = GaugeFamily("node_swap_priority", "Swap device priority.");
  const std::vector<absl::string_view> lines = absl::StrSplit(snapshot.swaps, '\n');
  for (size_t i = 1; i < lines.size(); ++i) {  // The first is the head.
    const Words words = WordsOf(lines[i]);
    if (words.size() != 5) continue;
    AddSample(size, {{"device", words[0]}, {"swap_type", words[1]}}, NumberOf(words[2]) * 1024);
    AddSample(used, {{"device", words[0]}, {"swap_type", words[1]}}, NumberOf(words[3]) * 1024);
    AddSample(priority, {{"device", words[0]}, {"swap_type", words[1]}}, NumberOf(words[4]));
  }
  Families families;
  for (auto* family : {&size, &used, &priority}) families.push_back(std::move(*family));
  return families;
}

Families CollectSlabinfo(const MachineSnapshot& snapshot) {
  constexpr std::array<std::pair<const char*, const char*>, 5> kColumns = {
      {{"node_slabinfo_active_objects", "The number of objects that are currently active (i.e., in use)."},
       {"node_slabinfo_objects", "The total number of allocated objects (i.e., objects that are both in use and not in use)."},
       {"node_slabinfo_object_size_bytes", "The size of objects in this slab, in bytes."},
       {"node_slabinfo_objects_per_slab", "The number of objects stored in each slab."},
       {"node_slabinfo_pages_per_slab", "The number of pages allocated for each slab."}}};
  Families families;
  for (const auto& [name, help] : kColumns) families.push_back(GaugeFamily(name, help));
  const std::vector<absl::string_view> lines = absl::StrSplit(snapshot.slabinfo, '\n');
  for (size_t i = 2; i < lines.size(); ++i) {  // Two lines of head.
    const Words words = WordsOf(lines[i]);
    if (words.size() <= kColumns.size()) continue;
    for (size_t column = 0; column < kColumns.size(); ++column) {
      AddSample(families[column], {{"slab", words[0]}}, NumberOf(words[column + 1]));
    }
  }
  return families;
}

}  // namespace mmlab
