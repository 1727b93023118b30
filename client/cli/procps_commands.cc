#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "client/procps/top.h"
#include "client/procps/vmstat.h"

// top and vmstat of procps, over the /proc of a machine.

namespace mmlab {
namespace {

std::string Read(Session& session, const std::string& machine, const std::string& path) {
  v1::ReadProcFileRequest request;
  request.set_machine("machines/" + machine);
  request.set_path(path);
  v1::ReadProcFileResponse response;
  session.Call(*session.connection().proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
  return std::move(*response.mutable_content());
}

// Of a process; nothing: it has ended meanwhile.
std::optional<std::string> ReadOf(Session& session, const std::string& machine, int32_t pid, const char* file) {
  v1::ReadProcFileRequest request;
  request.set_machine("machines/" + machine);
  request.set_path(absl::StrCat(pid, "/", file));
  v1::ReadProcFileResponse response;
  const grpc::Status read = session.connection().Call(*session.connection().proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
  if (read.error_code() == grpc::StatusCode::NOT_FOUND) return std::nullopt;
  session.Check(read);
  return std::move(*response.mutable_content());
}

double UptimeOf(Session& session, const std::string& machine) {
  double seconds = 0;
  const std::string text = Read(session, machine, "uptime");
  return absl::SimpleAtod(text.substr(0, text.find(' ')), &seconds) ? seconds : 0;
}

TopSample LookAt(Session& session, const std::string& machine) {
  TopSample sample;
  sample.stat = ParseProcStat(Read(session, machine, "stat"));
  sample.meminfo = ParseProcNumbers(Read(session, machine, "meminfo"));
  sample.loadavg = Read(session, machine, "loadavg");
  const double uptime = UptimeOf(session, machine);
  sample.uptime_seconds = static_cast<int64_t>(uptime);
  sample.uptime_ticks = static_cast<uint64_t>(uptime * 100);
  sample.time_seconds = static_cast<int64_t>(sample.stat.boot_time) + sample.uptime_seconds;
  v1::ListProcessesRequest request;
  request.set_parent("machines/" + machine);
  request.set_page_size(1000);
  do {
    v1::ListProcessesResponse page;
    session.Call(*session.connection().processes, &v1::ProcessService::Stub::ListProcesses, request, &page);
    for (const v1::Process& process : page.processes()) {
      const int32_t pid = process.pid();
      const std::optional<std::string> stat = ReadOf(session, machine, pid, "stat");
      const std::optional<std::string> statm = ReadOf(session, machine, pid, "statm");
      if (!stat || !statm) continue;
      if (std::optional<TopTask> task = ParseTopTask(*stat, *statm, process.uid())) sample.tasks.push_back(*std::move(task));
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return sample;
}

void AddTop(CLI::App& app, Session& session) {
  struct Options {
    std::string machine;
    double delay = 3;
    int count = 0;
    bool batch = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* top = app.add_subcommand("top", "Show a machine's processes, busiest first, again and again on a terminal");
  top->add_option("machine", options->machine, "Machine")->required();
  top->add_option("-d,--delay", options->delay, "Seconds between two looks")->check(CLI::Range(0.1, 3600.0));
  top->add_option("-n,--iterations", options->count, "How many looks; without it once, or on a terminal without end")
      ->check(CLI::Range(1, 1000000));
  top->add_flag("-b,--batch", options->batch, "All processes, one screen below the other");
  top->footer(
      "%CPU is a share of the machine's time since the look before, at first of the process's life.\nExample:\n  mmlab top lab1 -b -n 1");
  top->callback([options, &session] {
    constexpr size_t kRows = 40;
    const bool screen = !options->batch && isatty(STDOUT_FILENO) != 0;
    const int looks = options->count > 0 ? options->count : screen ? 0 : 1;
    std::optional<TopSample> before;
    for (int look = 1;; ++look) {
      TopSample now = LookAt(session, options->machine);
      if (screen) fmt::print("\x1b[H\x1b[J");
      if (!screen && look > 1) fmt::print("\n");
      fmt::print("{}", TopText(before ? &*before : nullptr, now, screen ? kRows : 0));
      std::fflush(stdout);
      if (look == looks) return;
      before = std::move(now);
      std::this_thread::sleep_for(std::chrono::duration<double>(options->delay));
    }
  });
}

struct VmstatOptions {
  std::string machine;
  double delay = 0;
  int count = 0;
  bool forks = false, slabs = false, sums = false, disks = false, disk_sums = false, one_header = false, no_first = false;
  std::string partition;
  std::string unit = "K";
  VmstatLayout layout;
};

VmstatSample SampleOf(Session& session, const std::string& machine) {
  VmstatSample sample;
  sample.stat = ParseProcStat(Read(session, machine, "stat"));
  sample.meminfo = ParseProcNumbers(Read(session, machine, "meminfo"));
  sample.vmstat = ParseProcNumbers(Read(session, machine, "vmstat"));
  sample.time_seconds = static_cast<int64_t>(sample.stat.boot_time) + static_cast<int64_t>(UptimeOf(session, machine));
  return sample;
}

// Below each header: what a terminal shows at once, without the three lines that are not rows.
size_t RowsOfHeader(const VmstatOptions& options) {
  constexpr size_t kDefaultRows = 21;
  if (options.one_header) return std::numeric_limits<size_t>::max();
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row <= 3) return kDefaultRows;
  return size.ws_row - size_t{3};
}

std::string PartitionText(Session& session, const VmstatOptions& options) {
  const std::string name = options.partition.substr(options.partition.rfind('/') + 1);
  for (const DiskstatsLine& line : ParseDiskstats(Read(session, options.machine, "diskstats"))) {
    if (line.name == name) return VmstatPartition(line);
  }
  Fail(kExitCheckFailed, "vmstat: Disk/Partition " + options.partition + " not found");
}

void Vmstat(Session& session, const VmstatOptions& options) {
  const std::string& machine = options.machine;
  const size_t rows = RowsOfHeader(options);
  if (options.forks) return fmt::print("{}", VmstatForks(ParseProcStat(Read(session, machine, "stat"))));
  if (options.slabs) return fmt::print("{}", VmstatSlabs(ParseSlabinfo(Read(session, machine, "slabinfo")), rows));
  if (options.sums) return fmt::print("{}", VmstatSums(options.layout, SampleOf(session, machine)));
  if (options.disks) return fmt::print("{}", VmstatDisks(options.layout, ParseDiskstats(Read(session, machine, "diskstats"))));
  if (options.disk_sums) return fmt::print("{}", VmstatDiskSums(ParseDiskstats(Read(session, machine, "diskstats"))));
  if (!options.partition.empty()) return fmt::print("{}", PartitionText(session, options));
  VmstatSample before;
  // A first row that is left out is one more look.
  const int looks = options.count > 0 && options.no_first ? options.count + 1 : options.count;
  for (int look = 1;; ++look) {
    VmstatSample now = SampleOf(session, machine);
    if (static_cast<size_t>(look - 1) % rows == 0) fmt::print("{}", VmstatHeader(options.layout));
    if (look > 1 || !options.no_first) fmt::print("{}", VmstatRow(options.layout, before, now));
    std::fflush(stdout);
    if (options.delay <= 0 || look == looks) return;
    before = std::move(now);
    std::this_thread::sleep_for(std::chrono::duration<double>(options.delay));
  }
}

void AddVmstat(CLI::App& app, Session& session) {
  const auto options = std::make_shared<VmstatOptions>();
  CLI::App* vmstat = app.add_subcommand("vmstat", "Show a machine's memory, paging and CPU use, as vmstat of procps does");
  vmstat->add_option("machine", options->machine, "Machine")->required();
  vmstat->add_option("delay", options->delay, "Seconds between two lines")->check(CLI::Range(0.1, 3600.0));
  vmstat->add_option("count", options->count, "How many lines")->check(CLI::Range(1, 1000000));
  vmstat->add_flag("-a,--active", options->layout.active, "Active and inactive memory");
  vmstat->add_flag("-f,--forks", options->forks, "Number of forks since boot");
  vmstat->add_flag("-m,--slabs", options->slabs, "Slab caches");
  vmstat->add_flag("-s,--stats", options->sums, "Event counters and memory, one a line");
  vmstat->add_flag("-d,--disk", options->disks, "Disks");
  vmstat->add_flag("-D,--disk-sum", options->disk_sums, "Disks, summed up");
  vmstat->add_option("-p,--partition", options->partition, "One partition");
  vmstat->add_option("-S,--unit", options->unit, "Unit of memory: k 1000, K 1024, m 1000000, M 1048576 bytes")
      ->check(CLI::IsMember({"k", "K", "m", "M"}).description(""));
  vmstat->add_flag("-n,--one-header", options->one_header, "Without a header above each screen");
  vmstat->add_flag("-y,--no-first", options->no_first, "Without the first line, the average since boot");
  vmstat->add_flag("-w,--wide", options->layout.wide, "Wide columns");
  vmstat->add_flag("-t,--timestamp", options->layout.timestamp, "The machine's clock at the end of each line");
  vmstat->footer("The first line is the average since boot; rates are by the machine's time.\nExample:\n  mmlab vmstat lab1 -a -S M");
  vmstat->callback([options, &session] {
    static const std::map<std::string, uint64_t> kUnits = {{"k", 1000}, {"K", 1024}, {"m", 1000000}, {"M", 1048576}};
    options->layout.unit = kUnits.at(options->unit);
    Vmstat(session, *options);
  });
}

}  // namespace

void AddProcpsCommands(CLI::App& app, Session& session) {
  AddTop(app, session);
  AddVmstat(app, session);
}

}  // namespace mmlab
