#include "server/machine/perform_memory.h"

#include <algorithm>

#include "server/machine/answer.h"
#include "server/machine/physical_access.h"

namespace mmlab {

Outcome PerformPhysicalWrite(const op::WritePhysicalMemory& o, const Machine& machine, BuddyMemory& memory, const Tracer& tracer) {
  const PhysAddr start(o.address);
  const Errno error = PhysicalAccess(machine).CheckWrite(start, o.data.size(), tracer.explanation());
  if (error != Errno::kOk) return Answer(error);
  const PageSize page = memory.page_size();
  for (size_t done = 0; done < o.data.size();) {
    const PhysAddr at = start + Bytes(done);
    const size_t offset = at.raw() & page.mask();
    const size_t count = std::min<size_t>(o.data.size() - done, page.bytes().raw() - offset);
    memory.contents().Write(page.FrameHolding(at), offset, o.data.data() + done, count);
    done += count;
  }
  return Value(o.data.size());
}

}  // namespace mmlab
