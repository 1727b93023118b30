#ifndef MMLAB_CLIENT_REPLAY_RECORDING_H_
#define MMLAB_CLIENT_REPLAY_RECORDING_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace mmlab {

// A recording of a real kernel: one JSON object a line (tests/conformance/data/traces). The first is the header.
struct Recording {
  std::string path;
  std::vector<nlohmann::ordered_json> records;
};

// Reads a .jsonl or .jsonl.gz file. INVALID_ARGUMENT names the line that is not JSON, or says that the file is no recording; NOT_FOUND when
// it can't be read.
absl::StatusOr<Recording> ReadRecording(const std::string& path);

// The recordings below a path: itself, or, of a folder, all *.jsonl and *.jsonl.gz in it, sorted.
absl::StatusOr<std::vector<std::string>> FindRecordings(const std::string& path);

// Runs `read`, which takes values from a recording and returns a status or a StatusOr. A value that is missing or of another type than the
// format says makes it INVALID_ARGUMENT.
template <typename Read>
auto ReadingRecording(const Read& read) -> decltype(read()) {
  try {
    return read();
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("not as the format says: ", error.what()));
  }
}

// "0x1f" or a JSON number as 64 bits; negative numbers by two's complement. Throws nothing; false when it is neither.
bool ParseWord(const nlohmann::ordered_json& value, uint64_t* out);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_RECORDING_H_
