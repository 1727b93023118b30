#include "server/host/request_ids.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/host/errors.h"

namespace mmlab {
namespace {

constexpr size_t kMaxIdLength = 64;

}  // namespace

absl::Status CheckRequestId(absl::string_view field, absl::string_view id) {
  if (id.size() > kMaxIdLength) return InvalidField(field, "must have at most 64 characters");
  for (const char c : id) {
    if (!absl::ascii_isgraph(c)) return InvalidField(field, "must have printable ASCII characters only");
  }
  return absl::OkStatus();
}

absl::StatusOr<const RequestIds::Answer*> RequestIds::Find(absl::string_view id, uint64_t fingerprint) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return nullptr;
  const std::list<Entry>::iterator entry = found->second;
  if (entry->fingerprint != fingerprint) {
    return WithReason(InvalidField("request_id", "was used for another request"), "REQUEST_ID_REUSED", {{"request_id", id}});
  }
  entries_.splice(entries_.begin(), entries_, entry);
  return &entry->answer;
}

void RequestIds::Remember(absl::string_view id, uint64_t fingerprint, Answer answer) {
  bytes_ += answer.response.size();
  entries_.push_front(Entry{std::string(id), fingerprint, std::move(answer)});
  by_id_.emplace(entries_.front().id, entries_.begin());
  while (entries_.size() > 1 && (entries_.size() > max_ids_ || bytes_ > max_bytes_)) {
    bytes_ -= entries_.back().answer.response.size();
    by_id_.erase(entries_.back().id);
    entries_.pop_back();
  }
}

}  // namespace mmlab
