#include "client/cli/contract_comments.h"

#include <algorithm>

namespace mmlab {

absl::string_view CommentOn(absl::string_view subject) {
  const absl::Span<const ContractComment> all = ContractComments();
  const auto at = std::lower_bound(all.begin(), all.end(), subject,
                                   [](const ContractComment& comment, absl::string_view wanted) { return comment.subject < wanted; });
  return at != all.end() && at->subject == subject ? at->text : absl::string_view();
}

}  // namespace mmlab
