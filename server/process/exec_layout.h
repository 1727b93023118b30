#ifndef MMLAB_SERVER_PROCESS_EXEC_LAYOUT_H_
#define MMLAB_SERVER_PROCESS_EXEC_LAYOUT_H_

#include <cstdint>

namespace mmlab {

struct Layout;

// The constants by which exec lays out an address space: of a machine layout, whatever the size of its user space, and of the 32-bit ARM
// programs that ARM64 runs (COMPAT). Linux: asm/elf.h, asm/processor.h of both architectures.
struct ExecLayout {
  uint64_t task_size = 0;      // TASK_SIZE.
  uint64_t stack_top = 0;      // STACK_TOP.
  uint64_t stack_top_max = 0;  // STACK_TOP_MAX: where the strings lie before the stack is moved to its place.
  uint64_t mmap_top = 0;       // What mmap_base counts down from.
  uint64_t unmapped_base = 0;  // TASK_UNMAPPED_BASE: where the bottom-up layout begins.
  uint64_t dyn_base = 0;       // ELF_ET_DYN_BASE: where position-independent programs go.
  uint64_t brk_range = 0;      // How far ASLR moves the heap, in bytes.
  int mmap_random_bits = 0;    // Of pages, by which ASLR moves the mmap area.
  int stack_random_bits = 0;   // Of pages, by which it moves the stack.
  int word_bytes = 0;          // Of the program's pointers.
  const char* platform = "";   // AT_PLATFORM.
  uint64_t hwcap = 0;          // AT_HWCAP, AT_HWCAP2: what the recorded machines' CPUs can do.
  uint64_t hwcap2 = 0;         //
  uint64_t vsyscall = 0;       // AT_SYSINFO: __kernel_vsyscall from the start of the vdso; 0: there is none.
  uint64_t min_sigstksz = 0;   // AT_MINSIGSTKSZ: the largest signal frame; 0: not told.
};
ExecLayout ExecLayoutOf(const Layout& layout, bool compat);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_EXEC_LAYOUT_H_
