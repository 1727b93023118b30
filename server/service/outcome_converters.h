#ifndef MMLAB_SERVER_SERVICE_OUTCOME_CONVERTERS_H_
#define MMLAB_SERVER_SERVICE_OUTCOME_CONVERTERS_H_

#include <cstddef>

#include "mmlab/v1/outcome.pb.h"
#include "server/base/explanation.h"
#include "server/machine/operation.h"

namespace mmlab {

// What a machine answered, as a message. Moves the data out of `outcome`. REQUIRES: outcome.unimplemented is empty; `proto` is empty.
void OutcomeToProto(Outcome& outcome, v1::Outcome* proto);

// Why it answered so. Steps beyond `max_steps` are only counted, and the text is left out then.
void ExplanationToProto(const Explanation& explanation, size_t max_steps, v1::Explanation* proto);

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_OUTCOME_CONVERTERS_H_
