#ifndef MMLAB_SERVER_KERNEL_BOOT_PAGE_TABLES_H_
#define MMLAB_SERVER_KERNEL_BOOT_PAGE_TABLES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "server/arch/kernel_layout.h"
#include "server/arch/layout.h"
#include "server/base/address.h"

namespace mmlab {

// The page tables that the kernel makes while it boots: of the linear map and, on ARM64, of its image. Linux: arch/x86/mm/init.c
// (init_mem_mapping), init_32.c (kernel_physical_mapping_init, mark_rodata_ro), pat/set_memory.c (split_large_page);
// arch/arm64/mm/mmu.c (map_kernel, map_mem, __create_pgd_mapping).
//
// There can be thousands of tables, all of them by rule: an entry is computed when somebody looks at it. What the kernel maps later is
// stored in the same tables by KernelPageTables, in entries that are none here.
class BootPageTables {
 public:
  BootPageTables() = default;
  virtual ~BootPageTables() = default;
  BootPageTables(const BootPageTables&) = delete;
  BootPageTables& operator=(const BootPageTables&) = delete;

  virtual Pfn root() const = 0;           // swapper_pg_dir
  virtual bool Has(Pfn frame) const = 0;  // Whether it is one of the tables.
  // What boot left in an entry of a table; 0 for none, and for frames that are no tables.
  virtual uint64_t Entry(Pfn table, uint32_t index) const = 0;
  virtual uint64_t tables() const = 0;  // Without swapper_pg_dir.
};

// Where an x86-32 kernel lies in physical memory.
struct X86KernelImage {
  PhysRange text;     // From _text to _etext.
  PhysAddr ro_end;    // __end_rodata
  PhysRange init;     // Freed when boot is over, what belongs to SMP alternatives included.
  PhysAddr init_end;  // __init_end
  PhysAddr bss;       // Its first pages are the tables that head_32.S needs, and swapper_pg_dir.
  PhysRange brk;      // Tables of head_32.S at its start, six pages for those of the linear map (pgt_buf) at its end.
};

// Tables of the linear map: 4 MiB pages (PAE: 2 MiB), but 4 KiB pages for the first of them, for those that are RAM in part, and for those
// that were split because the kernel's text and constants got other protection than what is beside them. A split takes a page of the page
// allocator in the kernel; here one of the tables of head_32.S which that page's place has in brk and which nothing points at any more.
// `ram`: ascending. `rodata`: false after "rodata=off".
std::unique_ptr<BootPageTables> MakeX86BootTables(const Layout& layout, const KernelLayout& kernel, absl::Span<const PhysRange> ram,
                                                  const X86KernelImage& image, bool rodata);

// A part of an ARM64 kernel's image that map_kernel() maps.
struct Arm64Segment {
  enum class Kind : uint8_t { kText, kRodata, kInitText, kData };
  PhysRange range;
  Kind kind = Kind::kData;
};

struct Arm64KernelImage {
  std::vector<Arm64Segment> segments;  // Ascending.
  PhysRange read_only;                 // _stext to __init_begin: the linear map has it apart, read only.
  Pfn swapper_pg_dir;
  Pfn tables_end;  // The first table is in the frame below it, each further one in the next frame below (memblock, top-down).
};

enum class Arm64Rodata : uint8_t {
  kOff,
  kOn,    // Text and constants are read only in the image.
  kFull,  // In the linear map as well, which is made of single pages so that the protection of each can change. Debian's choice.
};
std::unique_ptr<BootPageTables> MakeArm64BootTables(const Layout& layout, const KernelLayout& kernel, absl::Span<const PhysRange> ram,
                                                    const Arm64KernelImage& image, Arm64Rodata rodata);

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_BOOT_PAGE_TABLES_H_
