#ifndef MMLAB_CLIENT_REPLAY_KERNEL_SUITE_REPLAYER_H_
#define MMLAB_CLIENT_REPLAY_KERNEL_SUITE_REPLAYER_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace mmlab {

// One suite of the recordings made inside real kernels (tests/conformance/data/kernel): performs its operations with the engine's own
// allocators, in this process, because only there a machine can start from the lists that a dump shows.
//
// The caller takes every recorded answer out of what it hands over, so that none can go into the answer to the same operation. All values
// come from a file that anybody may have written: whatever is missing or of another type may throw nlohmann::json::exception,
// std::exception or CheckFailure; the caller turns that into INVALID_ARGUMENT.
class KernelSuiteReplayer {
 public:
  virtual ~KernelSuiteReplayer() = default;

  // The keys of an operation that are its arguments, besides "i", "op" and "h". Empty for an operation that the suite does not have.
  virtual absl::Span<const absl::string_view> Arguments(absl::string_view op) const = 0;

  // Called with the header, then with each line before the first operation (facts, lists of caches, the first dump), notes excepted.
  virtual absl::Status Load(const nlohmann::ordered_json& line) = 0;

  // Performs one operation. `op` has its arguments alone. Adds to `answer`, which starts with the arguments, what the kernel would answer.
  virtual void Perform(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer) = 0;

  // Sees the whole of an operation that was performed. What a recorded answer shows of something random (where the order of a slab's
  // objects begins) may be used for the operations behind it.
  virtual void Learn(const nlohmann::ordered_json& /*recorded*/) {}

  // A dump was asked for behind an operation: `answer` starts with its kind, "at", "which" and "cache" and gets the rest.
  virtual void Dump(nlohmann::ordered_json& answer) = 0;

  // One line for each broken promise of the allocators.
  virtual std::vector<std::string> CheckInvariants() const = 0;
};

// Null: no such suite.
std::unique_ptr<KernelSuiteReplayer> MakeKernelSuiteReplayer(absl::string_view suite);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_KERNEL_SUITE_REPLAYER_H_
