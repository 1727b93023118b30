#ifndef MMLAB_CLIENT_REPLAY_SYSTEM_WORKER_PROGRAM_H_
#define MMLAB_CLIENT_REPLAY_SYSTEM_WORKER_PROGRAM_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "client/replay/stage.h"
#include "mmlab/v1/machine.pb.h"

namespace mmlab {

// The program that runs as init of a recorded machine. Every process of a scenario is a fork of it and so inherits what it has touched:
// about 3.3 MiB of private pages, shared with init until somebody writes them.
//
// Starts it; returns its pid.
absl::StatusOr<int32_t> StartWorkerProgram(Stage& stage, v1::Layout layout);

// A fork of it, with what a child writes first (its stack, its data); returns the child's pid. Nothing: there is no memory for a child.
absl::StatusOr<std::optional<int32_t>> ForkWorker(Stage& stage, v1::Layout layout, int32_t parent);

// What init uses of its own memory whenever it looks at something: it may have been swapped out meanwhile.
absl::Status RunRecorder(Stage& stage, v1::Layout layout, int32_t pid);

// Where it keeps the bytes that it reads and writes: kWorkerBufferBytes of touched memory.
uint64_t WorkerBuffer(v1::Layout layout);
inline constexpr uint64_t kWorkerBufferBytes = 64 << 10;

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_SYSTEM_WORKER_PROGRAM_H_
