#ifndef MMLAB_CLIENT_CLI_CONTRACT_COMMENTS_H_
#define MMLAB_CLIENT_CLI_CONTRACT_COMMENTS_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace mmlab {

// A comment of the .proto files on one line: of a field of a request by its full name, of a method by that of its request.
struct ContractComment {
  absl::string_view subject;  // "mmlab.v1.MmapRequest.prot", "mmlab.v1.MmapRequest".
  absl::string_view text;
};

// All of them, by subject. Written when the project is built (proto/write_comments.cc).
absl::Span<const ContractComment> ContractComments();

// The comment on a subject; empty: there is none.
absl::string_view CommentOn(absl::string_view subject);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_CONTRACT_COMMENTS_H_
