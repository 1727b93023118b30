#include "server/procfs/slabinfo.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "server/kernel/slab_allocator.h"
#include "server/machine/machine.h"

namespace mmlab {

std::string SlabinfoText(const Machine& machine) {
  std::string text =
      "slabinfo - version: 2.1\n"
      "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
      " : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n";
  machine.ReadSlab([&text](const SlabAllocator& slab) {
    const std::vector<SlabCacheId> ids = slab.Caches();
    for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
      const SlabCacheView view = slab.View(*id);
      const SlabGeometry& g = view.geometry;
      // SLUB has no tunables, and takes what stands on CPUs' lists for active.
      absl::StrAppendFormat(&text, "%-17s %6u %6u %6u %4u %4d : tunables %4u %4u %4u : slabdata %6u %6u %6u\n", view.name,
                            view.boot_active_objects + view.active_objects, view.boot_total_objects + view.total_objects, g.size, g.objects,
                            1 << g.order, g.limit, g.batchcount, g.shared, view.boot_slabs + view.active_slabs,
                            view.boot_slabs + view.slabs, view.shared_objects);
    }
  });
  return text;
}

}  // namespace mmlab
