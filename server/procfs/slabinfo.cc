#include "server/procfs/slabinfo.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "server/kernel/slub.h"
#include "server/machine/machine.h"

namespace mmlab {

std::string SlabinfoText(const Machine& machine) {
  std::string text =
      "slabinfo - version: 2.1\n"
      "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
      " : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n";
  machine.ReadSlub([&text](const Slub& slub) {
    const std::vector<SlabCacheId> ids = slub.Caches();
    for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
      const SlabCacheView view = slub.View(*id);
      const SlabGeometry& g = view.geometry;
      // SLUB has no tunables, and takes what stands on CPUs' lists for active.
      absl::StrAppendFormat(&text, "%-17s %6u %6u %6u %4u %4d : tunables %4u %4u %4u : slabdata %6u %6u %6u\n", view.name,
                            view.total_objects - view.node_partial_free, view.total_objects, g.size, g.objects, 1 << g.order, 0, 0, 0,
                            view.slabs, view.slabs, 0);
    }
  });
  return text;
}

}  // namespace mmlab
