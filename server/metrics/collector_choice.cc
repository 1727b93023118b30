#include "server/metrics/collector_choice.h"

#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

constexpr char kDefault[] = "default";

absl::Status CheckNames(const std::set<std::string>& names) {
  for (const std::string& name : names) {
    if (FindCollector(name) != nullptr) continue;
    const auto append_name = [](std::string* out, const Collector& collector) {
      out->append(collector.name.data(), collector.name.size());
    };
    return absl::InvalidArgumentError(
        absl::StrCat("no such collector; there are: default, ", absl::StrJoin(Collectors(), ", ", append_name)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<const Collector*>> ChooseCollectors(const HttpRequest& request) {
  std::set<std::string> wanted;
  for (const std::string& name : request.QueryValues("collect[]")) wanted.insert(name);
  for (const std::string& list : request.QueryValues("collect")) {
    for (const absl::string_view name : absl::StrSplit(list, ',', absl::SkipWhitespace())) {
      wanted.emplace(absl::StripAsciiWhitespace(name));
    }
  }
  std::set<std::string> unwanted;
  for (const std::string& name : request.QueryValues("exclude[]")) unwanted.insert(name);
  if (!wanted.empty() && !unwanted.empty()) return absl::InvalidArgumentError("collect and exclude can't be combined");
  const bool with_default = wanted.empty() || wanted.erase(kDefault) != 0;
  MMLAB_RETURN_IF_ERROR(CheckNames(wanted));
  MMLAB_RETURN_IF_ERROR(CheckNames(unwanted));

  std::vector<const Collector*> chosen;
  for (const Collector& collector : Collectors()) {
    const std::string name(collector.name);
    if ((with_default && collector.by_default && unwanted.count(name) == 0) || wanted.count(name) != 0) chosen.push_back(&collector);
  }
  return chosen;
}

}  // namespace mmlab
