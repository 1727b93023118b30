#include "server/process/exec_layout.h"

#include "server/arch/layout.h"

namespace mmlab {
namespace {

constexpr uint64_t k32Mib = uint64_t{32} << 20;
constexpr uint64_t k1Gib = uint64_t{1} << 30;
constexpr uint64_t kCompatTaskSize = uint64_t{1} << 32;  // TASK_SIZE_32 is a page less.
constexpr uint64_t kCompatStackTop = 0xffff0000;         // AARCH32_VECTORS_BASE

// CPUID leaf 1, EDX: fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2.
constexpr uint64_t kX86Hwcap = 0x078bfbfd;
constexpr uint64_t kX86Vsyscall = 0x570;
constexpr uint64_t kX86SignalFrame = 1440;
// fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp; without SVE.
constexpr uint64_t kArm64Hwcap = 0x119fff;
constexpr uint64_t kArm64SignalFrame = 4720;
// half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt lpae evtstrm; aes pmull sha1 sha2 crc32.
constexpr uint64_t kArmHwcap = 0x37b0d6;
constexpr uint64_t kArmHwcap2 = 0x1f;

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
  exec.hwcap = layout.is_x86() ? kX86Hwcap : (compat ? kArmHwcap : kArm64Hwcap);
  exec.hwcap2 = compat ? kArmHwcap2 : 0;
  exec.vsyscall = layout.is_x86() ? kX86Vsyscall : 0;
  exec.min_sigstksz = layout.is_x86() ? kX86SignalFrame : (compat ? 0 : kArm64SignalFrame);
  return exec;
}

}  // namespace mmlab
