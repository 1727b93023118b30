#include "client/procps/top.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace mmlab {
namespace {

constexpr uint64_t kPageKib = 4;  // Of every layout.

// As much as fits the column: KiB, or one decimal of a larger unit.
std::string ScaledMemory(uint64_t kib, size_t width) {
  std::string text = fmt::format("{}", kib);
  double scaled = static_cast<double>(kib);
  for (const char unit : {'m', 'g', 't', 'p'}) {
    if (text.size() <= width) break;
    scaled /= 1024;
    text = fmt::format("{:.1f}{}", scaled, unit);
  }
  return text;
}

std::string TimeText(uint64_t ticks) {  // 100 a second.
  return fmt::format("{}:{:02}.{:02}", ticks / 6000, ticks / 100 % 60, ticks % 100);
}

std::string UptimeText(int64_t seconds) {
  const int64_t days = seconds / 86400, hours = seconds / 3600 % 24, minutes = seconds / 60 % 60;
  std::string text;
  if (days > 0) text += fmt::format("{} {}, ", days, days == 1 ? "day" : "days");
  return text + (hours > 0 ? fmt::format("{:2}:{:02}, ", hours, minutes) : fmt::format("{} min, ", minutes));
}

std::string LoadText(const std::string& loadavg) {
  const std::vector<std::string> words = absl::StrSplit(loadavg, ' ');
  return words.size() < 3 ? "" : fmt::format("{}, {}, {}", words[0], words[1], words[2]);
}

double Percent(uint64_t part, uint64_t whole) { return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole); }

std::string CpuLine(const TopSample* before, const TopSample& now) {
  const auto since = [&](uint64_t ProcStat::*time) { return now.stat.*time - (before == nullptr ? 0 : before->stat.*time); };
  constexpr std::pair<uint64_t ProcStat::*, const char*> kTimes[] = {
      {&ProcStat::user, "us"},   {&ProcStat::system, "sy"}, {&ProcStat::nice, "ni"},    {&ProcStat::idle, "id"},
      {&ProcStat::iowait, "wa"}, {&ProcStat::irq, "hi"},    {&ProcStat::softirq, "si"}, {&ProcStat::steal, "st"}};
  uint64_t all = 0;
  for (const auto& [time, name] : kTimes) all += since(time);
  std::string text = "%Cpu(s):";
  for (const auto& [time, name] : kTimes) {
    const double percent = all == 0 && std::string(name) == "id" ? 100 : Percent(since(time), all);
    text += fmt::format("{}{:5.1f} {}", time == &ProcStat::user ? "" : ",", percent, name);
  }
  return text + " \n";
}

std::string MemoryLines(const ProcNumbers& meminfo) {
  const auto mib = [&](uint64_t kib) { return static_cast<double>(kib) / 1024; };
  const uint64_t total = NumberOf(meminfo, "MemTotal"), available = NumberOf(meminfo, "MemAvailable");
  const uint64_t cache = NumberOf(meminfo, "Buffers") + NumberOf(meminfo, "Cached") + NumberOf(meminfo, "SReclaimable");
  const uint64_t swap = NumberOf(meminfo, "SwapTotal"), swap_free = NumberOf(meminfo, "SwapFree");
  return fmt::format(
      "MiB Mem : {:8.1f} total, {:8.1f} free, {:8.1f} used, {:8.1f} buff/cache     \n"
      "MiB Swap: {:8.1f} total, {:8.1f} free, {:8.1f} used. {:8.1f} avail Mem \n",
      mib(total), mib(NumberOf(meminfo, "MemFree")), mib(total - std::min(total, available)), mib(cache), mib(swap), mib(swap_free),
      mib(swap - std::min(swap, swap_free)), mib(available));
}

}  // namespace

std::optional<TopTask> ParseTopTask(const std::string& stat, const std::string& statm, uint32_t uid) {
  // "7 (name that may hold anything) S ...".
  const size_t open = stat.find('('), close = stat.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return std::nullopt;
  const std::vector<std::string> words = absl::StrSplit(stat.substr(close + 1), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  const std::vector<std::string> sizes = absl::StrSplit(statm, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  TopTask task;
  if (words.size() < 22 || sizes.size() < 3 || !absl::SimpleAtoi(stat.substr(0, open), &task.pid)) return std::nullopt;
  const auto number = [](const std::string& word) {
    int64_t value = 0;
    return absl::SimpleAtoi(word, &value) ? value : 0;
  };
  task.uid = uid;
  task.command = stat.substr(open + 1, close - open - 1);
  task.state = words[0][0];
  task.ticks = static_cast<uint64_t>(number(words[11]) + number(words[12]));
  task.priority = number(words[15]);
  task.nice = number(words[16]);
  task.start_ticks = static_cast<uint64_t>(number(words[19]));
  task.virtual_kib = static_cast<uint64_t>(number(words[20])) / 1024;
  task.resident_kib = static_cast<uint64_t>(number(words[21])) * kPageKib;
  task.shared_kib = static_cast<uint64_t>(number(sizes[2])) * kPageKib;
  return task;
}

std::string TopText(const TopSample* before, const TopSample& now, size_t rows) {
  std::map<int32_t, uint64_t> ticks_before;
  if (before != nullptr) {
    for (const TopTask& task : before->tasks) ticks_before[task.pid] = task.ticks;
  }
  std::vector<std::pair<double, const TopTask*>> tasks;
  size_t running = 0;
  for (const TopTask& task : now.tasks) {
    running += task.state == 'R' ? 1 : 0;
    const auto then = ticks_before.find(task.pid);
    const bool known = then != ticks_before.end();
    const uint64_t passed =
        known ? now.uptime_ticks - before->uptime_ticks : now.uptime_ticks - std::min(now.uptime_ticks, task.start_ticks);
    tasks.emplace_back(Percent(task.ticks - (known ? then->second : 0), passed), &task);
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  if (rows != 0 && tasks.size() > rows) tasks.resize(rows);

  std::string text = fmt::format("top - {} up {} 0 user,  load average: {}\n",
                                 absl::FormatTime("%H:%M:%S", absl::FromUnixSeconds(now.time_seconds), absl::UTCTimeZone()),
                                 UptimeText(now.uptime_seconds), LoadText(now.loadavg));
  text += fmt::format("Tasks: {:3} total, {:3} running, {:3} sleeping, {:3} stopped, {:3} zombie\n", now.tasks.size(), running,
                      now.tasks.size() - running, 0, 0);
  text += CpuLine(before, now) + MemoryLines(now.meminfo);
  text += "\n  PID USER      PR  NI    VIRT    RES    SHR S  %CPU  %MEM     TIME+ COMMAND\n";
  const uint64_t total = NumberOf(now.meminfo, "MemTotal");
  for (const auto& [percent, task] : tasks) {
    text += fmt::format("{:5} {:<8.8} {:3} {:3} {:>7} {:>6} {:>6} {} {:5.1f} {:5.1f} {:>9} {}\n", task->pid,
                        task->uid == 0 ? "root" : fmt::format("{}", task->uid), task->priority, task->nice,
                        ScaledMemory(task->virtual_kib, 7), ScaledMemory(task->resident_kib, 6), ScaledMemory(task->shared_kib, 6),
                        task->state, percent, Percent(task->resident_kib, total), TimeText(task->ticks), task->command);
  }
  return text;
}

}  // namespace mmlab
