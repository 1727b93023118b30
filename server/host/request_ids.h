#ifndef MMLAB_SERVER_HOST_REQUEST_IDS_H_
#define MMLAB_SERVER_HOST_REQUEST_IDS_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mmlab {

// INVALID_ARGUMENT unless `id` is at most 64 printable characters. Empty is fine: no protection asked for.
absl::Status CheckRequestId(absl::string_view field, absl::string_view id);

// The answers to the last requests that carried an id, so that a retry after a lost reply gets the first answer and does nothing.
//
// Always true: at most max_ids answers with at most max_bytes of responses together (one alone may be larger); those not asked for longest
// go first. Not thread-safe.
class RequestIds {
 public:
  // How a call ended: the status, and the serialised response when that is OK.
  struct Answer {
    absl::Status status;
    std::string response;
  };

  static constexpr size_t kMaxIds = 4096;
  static constexpr size_t kMaxBytes = size_t{16} << 20;

  explicit RequestIds(size_t max_ids = kMaxIds, size_t max_bytes = kMaxBytes) : max_ids_(max_ids), max_bytes_(max_bytes) {}

  // Null: the id is new. INVALID_ARGUMENT (REQUEST_ID_REUSED): it came with another request, whose `fingerprint` differs.
  // The pointer is valid until the next Remember.
  absl::StatusOr<const Answer*> Find(absl::string_view id, uint64_t fingerprint);
  // REQUIRES: Find(id) found nothing since the last Remember.
  void Remember(absl::string_view id, uint64_t fingerprint, Answer answer);

  size_t size() const { return entries_.size(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Entry {
    std::string id;
    uint64_t fingerprint;
    Answer answer;
  };

  const size_t max_ids_;
  const size_t max_bytes_;
  size_t bytes_ = 0;
  std::list<Entry> entries_;  // Most recently used first.
  absl::flat_hash_map<absl::string_view, std::list<Entry>::iterator> by_id_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_HOST_REQUEST_IDS_H_
