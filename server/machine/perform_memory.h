#ifndef MMLAB_SERVER_MACHINE_PERFORM_MEMORY_H_
#define MMLAB_SERVER_MACHINE_PERFORM_MEMORY_H_

#include "server/base/explanation.h"
#include "server/machine/machine.h"
#include "server/machine/operation.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// What the operations on the bytes of physical memory do. `memory` is the machine's.
Outcome PerformPhysicalWrite(const op::WritePhysicalMemory& o, const Machine& machine, BuddyMemory& memory, const Tracer& tracer);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PERFORM_MEMORY_H_
