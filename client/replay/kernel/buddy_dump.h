#ifndef MMLAB_CLIENT_REPLAY_KERNEL_BUDDY_DUMP_H_
#define MMLAB_CLIENT_REPLAY_KERNEL_BUDDY_DUMP_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// The page allocator's state that a recording's header and first dump describe. INVALID_ARGUMENT: lists that no kernel could have (frames
// outside their zone, on two lists, unaligned). May throw nlohmann::json::exception and std::exception.
absl::StatusOr<RecordedState> BuddyStateFrom(const nlohmann::ordered_json& header, const nlohmann::ordered_json& dump);

// What a dump of a zone looks like, in the recordings' form.
nlohmann::ordered_json DumpZone(const BuddyMemory& memory, const Zone& zone);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_KERNEL_BUDDY_DUMP_H_
