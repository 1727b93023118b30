#include "client/replay/recording.h"

#include <zlib.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace mmlab {
namespace {

// A recording of half a million steps is far below this; what is above is no recording.
constexpr size_t kMaxText = size_t{1} << 30;

absl::StatusOr<std::string> ReadMaybeCompressed(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (file == nullptr) return absl::NotFoundError(absl::StrCat(path, ": can't be read"));
  std::string text;
  char buffer[1 << 16];
  int got = 0;
  while ((got = gzread(file.get(), buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kMaxText) return absl::InvalidArgumentError(absl::StrCat(path, ": more than 1 GiB of text"));
  }
  if (got < 0) return absl::InvalidArgumentError(absl::StrCat(path, ": damaged gzip data"));
  return text;
}

}  // namespace

absl::StatusOr<Recording> ReadRecording(const std::string& path) {
  absl::StatusOr<std::string> text = ReadMaybeCompressed(path);
  if (!text.ok()) return text.status();
  Recording recording;
  recording.path = path;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    nlohmann::ordered_json record = nlohmann::ordered_json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (!record.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": not a JSON object"));
    recording.records.push_back(std::move(record));
  }
  if (recording.records.empty() || recording.records[0].value("kind", "") != "header") {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no recording: its first line is not a header"));
  }
  return recording;
}

absl::StatusOr<std::vector<std::string>> FindRecordings(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return std::vector<std::string>{path};
  std::vector<std::string> found;
  for (std::filesystem::recursive_directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().string();
    if (absl::EndsWith(name, ".jsonl") || absl::EndsWith(name, ".jsonl.gz")) found.push_back(name);
  }
  if (error) return absl::NotFoundError(absl::StrCat(path, ": ", error.message()));
  if (found.empty()) return absl::NotFoundError(absl::StrCat(path, ": holds no recording (*.jsonl, *.jsonl.gz)"));
  std::sort(found.begin(), found.end());
  return found;
}

bool ParseWord(const nlohmann::ordered_json& value, uint64_t* out) {
  if (value.is_number_unsigned()) {
    *out = value.get<uint64_t>();
    return true;
  }
  if (value.is_number_integer()) {
    *out = static_cast<uint64_t>(value.get<int64_t>());
    return true;
  }
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  if (absl::StartsWith(text, "0x")) return absl::SimpleHexAtoi(text, out);
  if (text == "unlimited") {
    *out = ~uint64_t{0};
    return true;
  }
  return absl::SimpleAtoi(text, out);
}

}  // namespace mmlab
