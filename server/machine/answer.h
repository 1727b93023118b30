#ifndef MMLAB_SERVER_MACHINE_ANSWER_H_
#define MMLAB_SERVER_MACHINE_ANSWER_H_

#include <cstdint>

#include "server/base/errno.h"
#include "server/base/result.h"
#include "server/machine/operation.h"
#include "server/process/pid.h"

namespace mmlab {

// What a call of the simulated kernel returned, as the outcome of an operation.

inline Outcome Answer(Errno error) {
  Outcome outcome;
  outcome.error = error;
  return outcome;
}

inline Outcome Value(uint64_t value) {
  Outcome outcome;
  outcome.value = value;
  return outcome;
}

inline Outcome Answer(const SysResult<uint64_t>& result) { return result.ok() ? Value(result.value()) : Answer(result.error()); }

inline Outcome Answer(const SysResult<Pid>& result) {
  return result.ok() ? Value(static_cast<uint64_t>(result.value().raw())) : Answer(result.error());
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_ANSWER_H_
