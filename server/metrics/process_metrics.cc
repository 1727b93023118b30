#include "server/metrics/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace mmlab {
namespace {

// Fields of /proc/PID/stat behind the command's name, which may hold blanks itself; the numbers are those of proc(5).
class StatFields {
 public:
  StatFields() {
    std::ifstream file("/proc/self/stat");
    const std::string line((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const size_t end_of_name = line.rfind(')');
    if (end_of_name != std::string::npos) fields_ = absl::StrSplit(line.substr(end_of_name + 1), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  }
  std::optional<double> Field(size_t number) const {
    double value = 0;
    if (number < kFirst || number - kFirst >= fields_.size() || !absl::SimpleAtod(fields_[number - kFirst], &value)) return std::nullopt;
    return value;
  }

 private:
  static constexpr size_t kFirst = 3;
  std::vector<std::string> fields_;
};

std::optional<double> BootTime() {
  std::ifstream file("/proc/stat");
  std::string word;
  double value = 0;
  while (file >> word) {
    if (word == "btime" && file >> value) return value;
  }
  return std::nullopt;
}

std::optional<double> OpenDescriptors() {
  std::error_code error;
  double count = 0;
  for (auto it = std::filesystem::directory_iterator("/proc/self/fd", error); !error && it != std::filesystem::directory_iterator();
       it.increment(error)) {
    ++count;
  }
  if (error) return std::nullopt;
  return count - 1;  // Without the one that lists them.
}

double SoftLimit(__rlimit_resource resource) {
  rlimit limit{};
  return getrlimit(resource, &limit) == 0 ? static_cast<double>(limit.rlim_cur) : 0;
}

}  // namespace

Families ProcessMetrics() {
  Families families;
  const auto add_gauge = [&families](const char* name, const char* help, std::optional<double> value) {
    if (value.has_value()) families.push_back(Gauge(name, help, *value));
  };
  const StatFields stat;
  const auto ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (const auto user = stat.Field(14), system = stat.Field(15); user.has_value() && system.has_value()) {
    families.push_back(
        Counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", (*user + *system) / ticks_per_second));
  }
  add_gauge("process_threads", "Number of OS threads in the process.", stat.Field(20));
  if (const auto start = stat.Field(22), boot = BootTime(); start.has_value() && boot.has_value()) {
    add_gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", *boot + *start / ticks_per_second);
  }
  add_gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.Field(23));
  if (const auto pages = stat.Field(24); pages.has_value()) {
    add_gauge("process_resident_memory_bytes", "Resident memory size in bytes.", *pages * static_cast<double>(sysconf(_SC_PAGESIZE)));
  }
  add_gauge("process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.", SoftLimit(RLIMIT_AS));
  add_gauge("process_open_fds", "Number of open file descriptors.", OpenDescriptors());
  add_gauge("process_max_fds", "Maximum number of open file descriptors.", SoftLimit(RLIMIT_NOFILE));
  return families;
}

}  // namespace mmlab
