#include "server/host/names.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/host/errors.h"

namespace mmlab {
namespace {

constexpr size_t kMaxMachineId = 63;

}  // namespace

bool IsMachineId(absl::string_view id) {
  if (id.empty() || id.size() > kMaxMachineId || !absl::ascii_islower(id.front()) || id.back() == '-') return false;
  for (const char c : id) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '-') return false;
  }
  return true;
}

absl::StatusOr<absl::string_view> ParseMachineName(absl::string_view field, absl::string_view name) {
  absl::string_view id = name;
  if (!absl::ConsumePrefix(&id, "machines/") || !IsMachineId(id)) return InvalidField(field, "must be \"machines/{machine}\"");
  return id;
}

absl::StatusOr<ProcessName> ParseProcessName(absl::string_view field, absl::string_view name) {
  absl::string_view rest = name;
  ProcessName parsed;
  const size_t middle = rest.find("/processes/");
  // SimpleAtoi is lenient about signs and spaces; a name is canonical or wrong.
  if (middle == absl::string_view::npos || !absl::SimpleAtoi(rest.substr(middle + 11), &parsed.pid) || parsed.pid <= 0 ||
      absl::StrCat(parsed.pid) != rest.substr(middle + 11)) {
    return InvalidField(field, "must be \"machines/{machine}/processes/{pid}\"");
  }
  rest = rest.substr(0, middle);
  if (!absl::ConsumePrefix(&rest, "machines/") || !IsMachineId(rest)) {
    return InvalidField(field, "must be \"machines/{machine}/processes/{pid}\"");
  }
  parsed.machine = rest;
  return parsed;
}

std::string MachineName(absl::string_view id) { return absl::StrCat("machines/", id); }

std::string ProcessNameOf(absl::string_view machine_id, int32_t pid) { return absl::StrCat("machines/", machine_id, "/processes/", pid); }

}  // namespace mmlab
