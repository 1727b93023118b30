#include <fmt/core.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "absl/strings/strip.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/progress_bar.h"
#include "client/replay/comparison.h"
#include "client/replay/replayer.h"

namespace mmlab {
namespace {

struct ReplayFlags {
  std::vector<std::string> paths;
  std::string answers;
  bool keep = false;
  bool expect_exact = false;
};

struct Totals {
  int files = 0;
  int files_exact = 0;
  int files_failed = 0;
  int64_t steps = 0;
  int64_t exact = 0;
  std::string first_difference;  // Of the first file that has one.
};

// Answers lie under the same relative names as the recordings, without .gz.
void WriteAnswers(const std::string& folder, const std::string& root, const std::string& path, const Answers& answers) {
  std::error_code error;
  std::string relative = std::filesystem::is_directory(root, error) ? std::filesystem::relative(path, root, error).string()
                                                                    : std::filesystem::path(path).filename().string();
  relative = std::string(absl::StripSuffix(relative, ".gz"));
  const std::filesystem::path target = std::filesystem::path(folder) / relative;
  std::filesystem::create_directories(target.parent_path(), error);
  std::ofstream out(target, std::ios::binary);
  for (const auto& record : answers.records) out << record.dump() << '\n';
  if (!out.flush()) Fail(kExitLocalFile, target.string() + ": can't be written");
}

void ReplayOne(Session& session, const ReplayFlags& flags, const std::string& root, const std::string& path, Totals& totals) {
  const absl::StatusOr<Recording> recording = ReadRecording(path);
  if (!recording.ok()) Fail(kExitLocalFile, std::string(recording.status().message()));
  ++totals.files;
  ReplayOptions options;
  options.keep_machine = flags.keep;
  ProgressBar bar(std::filesystem::path(path).filename().string());
  options.progress = [&bar](size_t done, size_t all) { bar.Show(done, all); };
  const absl::StatusOr<Answers> answers = Replay(session.connection(), *recording, options);
  bar.Clear();
  if (!answers.ok()) {
    ++totals.files_failed;
    fmt::print("{}: not replayed: {}\n", path, answers.status().ToString());
    return;
  }
  if (!flags.answers.empty()) WriteAnswers(flags.answers, root, path, *answers);
  const Comparison comparison = CompareAnswers(recording->records, answers->records);
  totals.steps += comparison.steps;
  totals.exact += comparison.exact;
  if (comparison.exact == comparison.steps) ++totals.files_exact;
  fmt::print("{}: {} of {} steps exactly as Linux answered\n", path, comparison.exact, comparison.steps);
  if (flags.keep) {
    fmt::print("  machine/{} kept; processes:", answers->machine.substr(answers->machine.find('/') + 1));
    for (const int32_t pid : answers->pids) fmt::print(" {}", pid);
    fmt::print("\n");
  }
  if (totals.first_difference.empty() && !comparison.first_difference.empty()) {
    totals.first_difference = path + ": first difference at " + comparison.first_difference;
  }
  std::fflush(stdout);
}

void RunReplay(Session& session, const ReplayFlags& flags) {
  Totals totals;
  for (const std::string& root : flags.paths) {
    const absl::StatusOr<std::vector<std::string>> found = FindRecordings(root);
    if (!found.ok()) Fail(kExitLocalFile, std::string(found.status().message()));
    for (const std::string& path : *found) ReplayOne(session, flags, root, path, totals);
  }
  if (!totals.first_difference.empty()) fmt::print("\n{}", totals.first_difference);
  fmt::print("\n{} of {} steps exact ({:.3f} %), {} of {} recordings exact", totals.exact, totals.steps,
             totals.steps == 0 ? 0.0 : 100.0 * static_cast<double>(totals.exact) / static_cast<double>(totals.steps), totals.files_exact,
             totals.files);
  if (totals.files_failed > 0) fmt::print(", {} not replayed", totals.files_failed);
  fmt::print("\n");
  if (flags.expect_exact && (totals.exact < totals.steps || totals.files_failed > 0)) throw CommandFailure{kExitCheckFailed};
}

}  // namespace

void AddReplayCommand(CLI::App& app, Session& session) {
  CLI::App* replay = app.add_subcommand("replay", "Perform recordings of real kernels and compare the answers");
  const auto flags = std::make_shared<ReplayFlags>();
  replay->add_option("recordings", flags->paths, "Recordings (.jsonl, .jsonl.gz) or folders of them")->required();
  replay->add_option("--answers", flags->answers, "Write the machine's answers below this folder, in the recordings' format");
  replay->add_flag("--keep", flags->keep, "Leave the machines on the server, to be looked at");
  replay->add_flag("--expect-exact", flags->expect_exact, "Exit 1 unless every step is exact");
  replay->footer(
      "A fresh machine of the recording's flavour performs each operation; nothing of the recorded answers goes to it.\n"
      "Examples:\n  mmlab replay tests/conformance/data/traces/686/s13-zero-page.jsonl.gz\n"
      "  mmlab replay tests/conformance/data/traces/arm64 --in-process --answers /tmp/answers");
  replay->callback([flags, &session] { RunReplay(session, *flags); });
}

}  // namespace mmlab
