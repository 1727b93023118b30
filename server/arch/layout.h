#ifndef MMLAB_SERVER_ARCH_LAYOUT_H_
#define MMLAB_SERVER_ARCH_LAYOUT_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "server/base/address.h"

namespace mmlab {

enum class LayoutKind : uint8_t { kX86_32 = 1, kX86_32Pae = 2, kArm64 = 3 };  // Numbers of v1::Layout.

// What differs between machine layouts and never changes within one: sizes, limits, address-space constants. Linux: arch/*/include/asm.
// How page-table entries look is in page_table_format.h.
struct Layout {
  LayoutKind kind;
  absl::string_view name;           // "x86_32", "x86_32_pae", "arm64".
  absl::string_view arch_label;     // As metrics show it: "x86_32" or "arm64".
  absl::string_view uname_machine;  // "i686", "aarch64".
  PageSize page_size{12};
  int pageblock_order;         // 10, 9, 9.
  uint64_t max_phys_addr;      // First physical address that the layout can't have.
  VirtAddr task_size;          // First address above user space: 0xc0000000; 2^48.
  VirtAddr stack_top;          // STACK_TOP: where the stack starts, before randomisation.
  int table_levels;            // Of page tables: 2, 3; 4, or 3 with 39-bit addresses.
  int word_bytes;              // 4 or 8: size of a pointer in user space.
  uint64_t lsm_mmap_min_addr;  // CONFIG_LSM_MMAP_MIN_ADDR: below it no hint is followed, whatever vm.mmap_min_addr says.
  bool is_x86() const { return kind != LayoutKind::kArm64; }
};

const Layout& GetLayout(LayoutKind kind);

}  // namespace mmlab

#endif  // MMLAB_SERVER_ARCH_LAYOUT_H_
