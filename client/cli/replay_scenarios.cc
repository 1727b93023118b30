#include "client/cli/replay_scenarios.h"

#include <fmt/core.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/cli/exit_code.h"
#include "client/replay/system/scenario_player.h"

namespace mmlab {
namespace {

// "arm64-192M/oom" below a folder of many, "oom" when the scenario itself was named.
std::string RelativeName(const std::string& root, const std::string& folder) {
  std::error_code error;
  if (IsScenario(root)) return std::filesystem::weakly_canonical(folder, error).filename().string();
  return std::filesystem::relative(folder, root, error).string();
}

absl::Status WriteFile(const std::filesystem::path& path, const std::string& content) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  std::ofstream out(path, std::ios::binary);
  out << content;
  if (!out.flush()) return absl::DataLossError(absl::StrCat(path.string(), ": can't be written"));
  return absl::OkStatus();
}

absl::Status WriteAnswers(const std::filesystem::path& folder, const Scenario& scenario, const ScenarioAnswers& answers) {
  std::string script = scenario.header.dump() + "\n";
  for (const auto& result : answers.results) script += result.dump() + "\n";
  if (absl::Status status = WriteFile(folder / "script.jsonl", script); !status.ok()) return status;
  for (const auto& [name, content] : answers.snapshot_files) {
    if (absl::Status status = WriteFile(folder / name, content); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

void ReplayScenarios(Session& session, const std::vector<std::string>& roots, const std::string& answers, bool keep) {
  int performed = 0;
  int exit_code = kExitDone;
  for (const std::string& root : roots) {
    for (const std::string& folder : FindScenarios(root)) {
      const absl::StatusOr<Scenario> scenario = ReadScenario(folder);
      if (!scenario.ok()) Fail(kExitLocalFile, std::string(scenario.status().message()));
      ScenarioAnswers played;
      const absl::Status status = PlayScenario(session.connection(), *scenario, keep, played);
      if (status.ok()) {
        ++performed;
        fmt::print("{}: {} operations performed, {} files seen\n", folder, scenario->operations.size(), played.snapshot_files.size());
      } else {
        fmt::print(stderr, "error: {}: not performed to its end: {}\n", folder, std::string(status.message()));
        if (exit_code == kExitDone) exit_code = kExitStatusBase + static_cast<int>(status.code());
      }
      for (const auto& [what, count] : played.not_simulated) fmt::print("  not simulated yet, {} x: {}\n", count, what);
      if (keep && !played.machine.empty()) fmt::print("  machine/{} kept\n", played.machine.substr(played.machine.find('/') + 1));
      if (answers.empty()) continue;
      const absl::Status written = WriteAnswers(std::filesystem::path(answers) / RelativeName(root, folder), *scenario, played);
      if (!written.ok()) Fail(kExitLocalFile, std::string(written.message()));
    }
  }
  fmt::print("\n{} scenarios performed\n", performed);
  if (exit_code != kExitDone) throw CommandFailure{exit_code};
}

}  // namespace mmlab
