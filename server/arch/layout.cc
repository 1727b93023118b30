#include "server/arch/layout.h"

#include "server/base/check.h"

namespace mmlab {
namespace {

constexpr Layout kLayouts[] = {
    {.kind = LayoutKind::kX86_32,
     .name = "x86_32",
     .arch_label = "x86_32",
     .uname_machine = "i686",
     .pageblock_order = 10,
     .max_phys_addr = uint64_t{1} << 32,
     .task_size = VirtAddr(0xc0000000),
     .stack_top = VirtAddr(0xc0000000),
     .table_levels = 2,
     .word_bytes = 4,
     .lsm_mmap_min_addr = 65536},
    {.kind = LayoutKind::kX86_32Pae,
     .name = "x86_32_pae",
     .arch_label = "x86_32",
     .uname_machine = "i686",
     .pageblock_order = 9,
     .max_phys_addr = uint64_t{1} << 36,
     .task_size = VirtAddr(0xc0000000),
     .stack_top = VirtAddr(0xc0000000),
     .table_levels = 3,
     .word_bytes = 4,
     .lsm_mmap_min_addr = 65536},
    {.kind = LayoutKind::kArm64,
     .name = "arm64",
     .arch_label = "arm64",
     .uname_machine = "aarch64",
     .pageblock_order = 9,
     .max_phys_addr = uint64_t{1} << 48,
     .task_size = VirtAddr(uint64_t{1} << 48),
     .stack_top = VirtAddr(uint64_t{1} << 48),
     .table_levels = 4,
     .word_bytes = 8,
     .lsm_mmap_min_addr = 32768},
};

}  // namespace

const Layout& GetLayout(LayoutKind kind) {
  for (const Layout& layout : kLayouts) {
    if (layout.kind == kind) return layout;
  }
  MMLAB_CHECK(false);
  return kLayouts[0];
}

}  // namespace mmlab
