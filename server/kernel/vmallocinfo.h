#ifndef MMLAB_SERVER_KERNEL_VMALLOCINFO_H_
#define MMLAB_SERVER_KERNEL_VMALLOCINFO_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "server/arch/layout.h"
#include "server/kernel/vmalloc.h"

namespace mmlab {

// /proc/vmallocinfo: the areas by address, then the lazily freed ranges. Linux: s_show(), mm/vmalloc.c.
std::string VmallocinfoText(const Vmalloc& vmalloc, const Layout& layout);

struct VmallocinfoLine {
  KernelArea area;
  bool lazy;  // "unpurged vm_area": freed, and not usable again yet. Nothing but start and end is meant.
};
// What a line of it describes. Nothing: not as the kernel prints it.
std::optional<VmallocinfoLine> ParseVmallocinfoLine(absl::string_view line);

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_VMALLOCINFO_H_
