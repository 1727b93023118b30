#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/progress_bar.h"
#include "client/cli/replay_scenarios.h"
#include "client/replay/comparison.h"
#include "client/replay/kernel/kernel_comparison.h"
#include "client/replay/kernel/kernel_replay.h"
#include "client/replay/replayer.h"
#include "client/replay/system/scenario.h"

namespace mmlab {
namespace {

struct ReplayFlags {
  std::vector<std::string> paths;
  std::string answers;
  unsigned jobs = std::clamp(std::thread::hardware_concurrency(), 1u, 8u);
  bool keep = false;
  bool expect_exact = false;
};

// A recording and the argument under which it was found.
struct Item {
  std::string root;
  std::string path;
  bool kernel = false;  // Made inside a kernel: performed in this process, without a server.
};

// How the replay of one recording ended.
struct Judged {
  Comparison comparison;
  std::string machine;  // Where it was kept.
  std::vector<int32_t> pids;
  absl::Status status;
  int exit_code = kExitDone;  // Of a status that is not OK.
};

struct Totals {
  int files = 0;
  int files_exact = 0;
  int files_failed = 0;
  int64_t steps = 0;
  int64_t exact = 0;
  std::string first_difference;  // Of the first file that has one.
  int exit_code = kExitDone;     // Of the first file that could not be replayed.
};

// Answers lie under the same relative names as the recordings, without .gz.
absl::Status WriteAnswers(const std::string& folder, const Item& item, const std::vector<nlohmann::ordered_json>& records) {
  std::error_code error;
  std::string relative = std::filesystem::is_directory(item.root, error) ? std::filesystem::relative(item.path, item.root, error).string()
                                                                         : std::filesystem::path(item.path).filename().string();
  relative = std::string(absl::StripSuffix(relative, ".gz"));
  const std::filesystem::path target = std::filesystem::path(folder) / relative;
  std::filesystem::create_directories(target.parent_path(), error);
  std::ofstream out(target, std::ios::binary);
  for (const auto& record : records) out << record.dump() << '\n';
  if (!out.flush()) return absl::DataLossError(absl::StrCat(target.string(), ": can't be written"));
  return absl::OkStatus();
}

Judged Ended(absl::Status status, int exit_code) {
  Judged judged;
  judged.status = std::move(status);
  judged.exit_code = exit_code;
  return judged;
}

Judged ReplayInsideKernel(const ReplayFlags& flags, const Item& item, const Recording& recording) {
  const absl::StatusOr<KernelAnswers> answers = ReplayKernel(recording);
  if (!answers.ok()) return Ended(answers.status(), kExitStatusBase + static_cast<int>(answers.status().code()));
  if (!flags.answers.empty()) {
    if (absl::Status status = WriteAnswers(flags.answers, item, answers->records); !status.ok()) return Ended(status, kExitLocalFile);
  }
  absl::StatusOr<Comparison> comparison = CompareKernelAnswers(recording.records, answers->records);
  if (!comparison.ok()) return Ended(comparison.status(), kExitLocalFile);
  Judged judged;
  judged.comparison = *std::move(comparison);
  return judged;
}

// `connection` may be null for a recording made inside a kernel.
Judged ReplayOne(Connection* connection, const ReplayFlags& flags, const Item& item, const ReplayOptions& options) {
  const absl::StatusOr<Recording> recording = ReadRecording(item.path);
  if (!recording.ok()) return Ended(recording.status(), kExitLocalFile);
  if (item.kernel) return ReplayInsideKernel(flags, item, *recording);
  absl::StatusOr<Answers> answers = Replay(*connection, *recording, options);
  if (!answers.ok()) {
    // The replayer and the server speak of the same thing in the same words: what the recording asked for, or why it was not done.
    return Ended(answers.status(), kExitStatusBase + static_cast<int>(answers.status().code()));
  }
  if (!flags.answers.empty()) {
    if (absl::Status status = WriteAnswers(flags.answers, item, answers->records); !status.ok())
      return Ended(std::move(status), kExitLocalFile);
  }
  absl::StatusOr<Comparison> comparison = CompareAnswers(recording->records, answers->records);
  if (!comparison.ok()) return Ended(comparison.status(), kExitLocalFile);
  Judged judged;
  judged.comparison = *std::move(comparison);
  if (flags.keep) judged.machine = answers->machine;
  judged.pids = std::move(answers->pids);
  return judged;
}

void Report(const Item& item, const Judged& judged, Totals& totals) {
  ++totals.files;
  if (!judged.status.ok()) {
    ++totals.files_failed;
    if (totals.exit_code == kExitDone) totals.exit_code = judged.exit_code;
    std::fflush(stdout);
    fmt::print(stderr, "error: {}: not replayed: {}\n", item.path, std::string(judged.status.message()));
    return;
  }
  const Comparison& comparison = judged.comparison;
  totals.steps += comparison.steps;
  totals.exact += comparison.exact;
  if (comparison.exact == comparison.steps) ++totals.files_exact;
  fmt::print("{}: {} of {} steps exactly as Linux answered\n", item.path, comparison.exact, comparison.steps);
  if (!judged.machine.empty()) {
    fmt::print("  machine/{} kept; processes:", judged.machine.substr(judged.machine.find('/') + 1));
    for (const int32_t pid : judged.pids) fmt::print(" {}", pid);
    fmt::print("\n");
  }
  if (totals.first_difference.empty() && !comparison.first_difference.empty()) {
    totals.first_difference = item.path + ": first difference at " + comparison.first_difference;
  }
  std::fflush(stdout);
}

// One recording: its steps are the progress.
void ReplaySingle(Connection* connection, const ReplayFlags& flags, const Item& item, Totals& totals) {
  ProgressBar bar(std::filesystem::path(item.path).filename().string());
  ReplayOptions options;
  options.keep_machine = flags.keep;
  options.progress = [&bar](size_t done, size_t all) { bar.Show(done, all); };
  const Judged judged = ReplayOne(connection, flags, item, options);
  bar.Clear();
  Report(item, judged, totals);
}

// Several, `jobs` at a time; reported in their order.
void ReplayAll(Connection* connection, const ReplayFlags& flags, const std::vector<Item>& items, Totals& totals) {
  ReplayOptions options;
  options.keep_machine = flags.keep;
  std::mutex mutex;
  std::condition_variable arrived;
  std::vector<std::optional<Judged>> results(items.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < items.size(); i = next++) {
      Judged judged = ReplayOne(connection, flags, items[i], options);
      const std::lock_guard<std::mutex> lock(mutex);
      results[i] = std::move(judged);
      arrived.notify_one();
    }
  };
  std::vector<std::thread> workers;
  for (size_t i = 0; i < std::min<size_t>(flags.jobs, items.size()); ++i) workers.emplace_back(work);
  ProgressBar bar("replaying");
  for (size_t i = 0; i < items.size(); ++i) {
    std::unique_lock<std::mutex> lock(mutex);
    arrived.wait(lock, [&] { return results[i].has_value(); });
    const Judged judged = *std::move(results[i]);
    results[i].reset();
    lock.unlock();
    bar.Clear();
    Report(items[i], judged, totals);
    bar.Show(i + 1, items.size());
  }
  for (std::thread& worker : workers) worker.join();
}

void RunReplay(Session& session, const ReplayFlags& flags) {
  std::vector<Item> items;
  std::vector<std::string> scenarios;
  for (const std::string& root : flags.paths) {
    if (!FindScenarios(root).empty()) {
      scenarios.push_back(root);
      continue;
    }
    const absl::StatusOr<std::vector<std::string>> found = FindRecordings(root);
    if (!found.ok()) Fail(kExitLocalFile, std::string(found.status().message()));
    for (const std::string& path : *found) items.push_back({root, path, IsKernelRecording(path)});
  }
  if (!scenarios.empty()) ReplayScenarios(session, scenarios, flags.answers, flags.keep);
  if (items.empty()) return;
  const bool needs_server = std::any_of(items.begin(), items.end(), [](const Item& item) { return !item.kernel; });
  Connection* const connection = needs_server ? &session.connection() : nullptr;
  Totals totals;
  if (items.size() == 1) {
    ReplaySingle(connection, flags, items[0], totals);
  } else {
    ReplayAll(connection, flags, items, totals);
  }
  if (totals.files_failed == totals.files) throw CommandFailure{totals.exit_code};  // No total of nothing.
  if (!totals.first_difference.empty()) fmt::print("\n{}", totals.first_difference);
  fmt::print("\n{} of {} steps exact ({:.3f} %), {} of {} recordings exact", totals.exact, totals.steps,
             totals.steps == 0 ? 0.0 : 100.0 * static_cast<double>(totals.exact) / static_cast<double>(totals.steps), totals.files_exact,
             totals.files);
  if (totals.files_failed > 0) fmt::print(", {} not replayed", totals.files_failed);
  fmt::print("\n");
  if (totals.exit_code != kExitDone) throw CommandFailure{totals.exit_code};
  if (flags.expect_exact && totals.exact < totals.steps) throw CommandFailure{kExitCheckFailed};
}

}  // namespace

void AddReplayCommand(CLI::App& app, Session& session) {
  CLI::App* replay = app.add_subcommand("replay", "Perform recordings of real kernels and compare the answers");
  const auto flags = std::make_shared<ReplayFlags>();
  replay->add_option("recordings", flags->paths, "Recordings (.jsonl, .jsonl.gz), or folders of them or of scenarios")->required();
  replay->add_option("--answers", flags->answers, "Write the machine's answers below this folder, in the recordings' format");
  replay->add_option("--jobs", flags->jobs, "Recordings at a time")->check(CLI::Range(1, 64))->envname("MMLAB_JOBS")->capture_default_str();
  replay->add_flag("--keep", flags->keep, "Leave the machines on the server, to be looked at");
  replay->add_flag("--expect-exact", flags->expect_exact, "Exit 1 unless every step is exact");
  replay->footer(
      "A fresh machine of the recording's flavour performs each operation; nothing of the recorded answers goes to it. A folder with a\n"
      "script.jsonl is a scenario of a whole machine: its snapshots and results are written to --answers, for a judge to compare.\n"
      "Recordings made inside a kernel (calls of its allocators) start from their first dump, in this process: they need no server.\n"
      "What one of their answers shows of an order that the kernel drew at random is used for the operations behind it alone.\n"
      "Examples:\n  mmlab replay tests/conformance/data/traces/686/s13-zero-page.jsonl.gz\n"
      "  mmlab replay tests/conformance/data/traces/arm64 --in-process --answers /tmp/answers");
  replay->callback([flags, &session] { RunReplay(session, *flags); });
}

}  // namespace mmlab
