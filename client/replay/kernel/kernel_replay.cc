#include "client/replay/kernel/kernel_replay.h"

#include <zlib.h>

#include <exception>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/replay/kernel/suite_replayer.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "kernel-oracle";

void CopyKeys(const Json& from, absl::Span<const absl::string_view> keys, Json& to) {
  for (const absl::string_view key : keys) {
    const std::string name(key);
    if (from.contains(name)) to[name] = from[name];
  }
}

// An operation without what was recorded as its answer.
Json WithoutAnswer(const Json& line, absl::Span<const absl::string_view> arguments) {
  Json op = Json::object();
  CopyKeys(line, {"i", "op", "h"}, op);
  CopyKeys(line, arguments, op);
  return op;
}

absl::Status PerformLine(const Json& line, KernelSuiteReplayer& suite, bool& started, KernelAnswers& answers) {
  if (line.contains("op")) {
    started = true;
    const auto& name = line["op"].get_ref<const std::string&>();
    const Json op = WithoutAnswer(line, suite.Arguments(name));
    Json answer = op;
    if (name != "skip") suite.Perform(op, answer);  // "skip": the caller held nothing and made no call.
    answers.records.push_back(std::move(answer));
    if (name != "skip") suite.Learn(line);
    return absl::OkStatus();
  }
  const std::string kind = line.value("kind", "");
  if (kind == "note") return absl::OkStatus();
  if (!started) return suite.Load(line);
  Json answer = Json::object();
  CopyKeys(line, {"kind", "at", "which", "cache"}, answer);
  suite.Dump(answer);
  answers.records.push_back(std::move(answer));
  for (const std::string& broken : suite.CheckInvariants())
    answers.broken.push_back(absl::StrCat("at ", line.value("at", 0), ": ", broken));
  return absl::OkStatus();
}

absl::StatusOr<KernelAnswers> ReplayLines(const Recording& recording) {
  KernelAnswers answers;
  const Json& header = recording.records[0];
  const std::string name = header.value("suite", "");
  const std::unique_ptr<KernelSuiteReplayer> suite = MakeKernelSuiteReplayer(name);
  if (suite == nullptr) return absl::UnimplementedError(absl::StrCat("recordings of suite \"", name, "\" are not performed"));
  answers.records.push_back(header);
  bool started = false;
  for (const Json& line : recording.records) MMLAB_RETURN_IF_ERROR(PerformLine(line, *suite, started, answers));
  return answers;
}

}  // namespace

bool IsKernelRecording(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  char line[512];
  if (file == nullptr || gzgets(file.get(), line, sizeof line) == nullptr) return false;
  return absl::StrContains(line, absl::StrCat("\"", kFormat, "\""));
}

absl::StatusOr<KernelAnswers> ReplayKernel(const Recording& recording) {
  try {
    return ReplayLines(recording);
  } catch (const std::exception& error) {  // Of JSON, of numbers in text, of an allocator that was given lists that can't be.
    return absl::InvalidArgumentError(absl::StrCat("not as the format says: ", error.what()));
  }
}

}  // namespace mmlab
