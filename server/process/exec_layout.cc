#include "server/process/exec_layout.h"

#include "server/arch/layout.h"

namespace mmlab {
namespace {

constexpr uint64_t k32Mib = uint64_t{32} << 20;
constexpr uint64_t k1Gib = uint64_t{1} << 30;
constexpr uint64_t kCompatTaskSize = uint64_t{1} << 32;  // TASK_SIZE_32 is a page less.
constexpr uint64_t kCompatStackTop = 0xffff0000;         // AARCH32_VECTORS_BASE

}  // namespace

ExecLayout ExecLayoutOf(const Layout& layout, bool compat) {
  const uint64_t page_mask = layout.page_size.mask();
  ExecLayout exec;
  exec.task_size = compat ? kCompatTaskSize - page_mask - 1 : layout.task_size.raw();
  exec.stack_top_max = layout.stack_top.raw();
  exec.stack_top = compat ? kCompatStackTop : exec.stack_top_max;
  exec.mmap_top = layout.is_x86() ? exec.task_size : exec.stack_top;
  exec.unmapped_base = (exec.task_size / (layout.is_x86() ? 3 : 4) + page_mask) & ~page_mask;
  exec.dyn_base = layout.is_x86() || compat ? 0x400000 : 2 * exec.task_size / 3;
  const bool small = layout.word_bytes == 4 || compat;
  exec.brk_range = small ? k32Mib : k1Gib;
  exec.mmap_random_bits = layout.is_x86() ? 8 : (compat ? 11 : 18);  // vm.mmap_rnd_bits, vm.mmap_rnd_compat_bits as Debian sets them.
  exec.stack_random_bits = small ? 11 : 18;
  exec.word_bytes = small ? 4 : 8;
  exec.platform = layout.is_x86() ? "i686" : (compat ? "v8l" : "aarch64");
  return exec;
}

}  // namespace mmlab
