#include "client/procps/proc_text.h"

#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace mmlab {
namespace {

std::vector<std::vector<std::string>> WordsOfLines(const std::string& text) {
  std::vector<std::vector<std::string>> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (!words.empty()) lines.push_back(std::move(words));
  }
  return lines;
}

uint64_t WordAt(const std::vector<std::string>& words, size_t at) {
  uint64_t value = 0;
  return at < words.size() && absl::SimpleAtoi(words[at], &value) ? value : 0;
}

}  // namespace

ProcNumbers ParseProcNumbers(const std::string& text) {
  ProcNumbers numbers;
  for (const std::vector<std::string>& words : WordsOfLines(text)) {
    if (words.size() < 2) continue;
    numbers[std::string(absl::StripSuffix(words[0], ":"))] = WordAt(words, 1);
  }
  return numbers;
}

uint64_t NumberOf(const ProcNumbers& numbers, const std::string& name) {
  const auto it = numbers.find(name);
  return it == numbers.end() ? 0 : it->second;
}

ProcStat ParseProcStat(const std::string& text) {
  ProcStat stat;
  const std::map<std::string, uint64_t*> counts = {{"intr", &stat.interrupts},       {"ctxt", &stat.switches},
                                                   {"btime", &stat.boot_time},       {"processes", &stat.forks},
                                                   {"procs_running", &stat.running}, {"procs_blocked", &stat.blocked}};
  for (const std::vector<std::string>& words : WordsOfLines(text)) {
    if (words[0] == "cpu") {
      uint64_t* const times[] = {&stat.user, &stat.nice,    &stat.system, &stat.idle,  &stat.iowait,
                                 &stat.irq,  &stat.softirq, &stat.steal,  &stat.guest, &stat.guest_nice};
      for (size_t i = 0; i < std::size(times); ++i) *times[i] = WordAt(words, i + 1);
    }
    if (const auto count = counts.find(words[0]); count != counts.end()) *count->second = WordAt(words, 1);
  }
  return stat;
}

std::vector<SlabinfoLine> ParseSlabinfo(const std::string& text) {
  std::vector<SlabinfoLine> lines;
  for (const std::vector<std::string>& words : WordsOfLines(text)) {
    if (words.size() < 6 || words[0] == "#" || words[0] == "slabinfo") continue;
    lines.push_back({words[0], WordAt(words, 1), WordAt(words, 2), WordAt(words, 3), WordAt(words, 4)});
  }
  return lines;
}

std::vector<DiskstatsLine> ParseDiskstats(const std::string& text) {
  std::vector<DiskstatsLine> lines;
  for (const std::vector<std::string>& words : WordsOfLines(text)) {
    if (words.size() < 14) continue;
    const auto at = [&](size_t i) { return WordAt(words, i); };
    lines.push_back({words[2], at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11), at(12), at(13)});
  }
  return lines;
}

}  // namespace mmlab
