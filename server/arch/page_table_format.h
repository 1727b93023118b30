#ifndef MMLAB_SERVER_ARCH_PAGE_TABLE_FORMAT_H_
#define MMLAB_SERVER_ARCH_PAGE_TABLE_FORMAT_H_

#include <cstdint>
#include <cstring>
#include <string>

#include "server/arch/layout.h"
#include "server/base/address.h"

namespace mmlab {

// A page-table entry of the lowest level as the table holds it, in the architecture's bits (pte_t). On x86-32 without PAE 32 bits of it
// exist.
using Pte = uint64_t;

// What the processor makes of an entry when it is used for an access.
enum class PteVerdict : uint8_t {
  kAllowed,
  kNotPresent,  // Translation fault.
  kAccessFlag,  // ARM64 without hardware access flag: the entry is old.
  kPermission,
};

// How page-table entries and tables look in one layout: x86-32 with two levels, x86-32 PAE with three, ARM64 with four (48-bit, 4 KiB).
// Levels count from 1 (pte) up to levels() (pgd). Linux: arch/*/include/asm/pgtable*.h; the functions of an entry keep its names.
//
// Always true: what a function returns differs from its argument only in the bits that its name says.
class PageTableFormat {
 public:
  explicit PageTableFormat(const Layout& layout);

  int levels() const { return levels_; }
  int entry_bytes() const { return wide_ ? 8 : 4; }
  // Entries of a table of that level.
  uint32_t entries(int level) const { return 1u << bits_[level]; }
  // Bits of the address below what a table of that level indexes; an entry of it covers 2^shift bytes.
  int shift(int level) const { return shift_[level]; }
  uint64_t coverage(int level) const { return uint64_t{1} << shift_[level]; }
  uint32_t IndexOf(VirtAddr address, int level) const {
    return static_cast<uint32_t>(address.raw() >> shift_[level]) & ((1u << bits_[level]) - 1);
  }

  Pte Load(const uint8_t* table, uint32_t index) const {
    if (wide_) {
      uint64_t entry;
      std::memcpy(&entry, table + 8 * size_t{index}, sizeof(entry));
      return entry;
    }
    uint32_t entry;
    std::memcpy(&entry, table + 4 * size_t{index}, sizeof(entry));
    return entry;
  }
  void Store(uint8_t* table, uint32_t index, Pte entry) const {
    if (wide_) {
      std::memcpy(table + 8 * size_t{index}, &entry, sizeof(entry));
      return;
    }
    const auto narrow = static_cast<uint32_t>(entry);
    std::memcpy(table + 4 * size_t{index}, &narrow, sizeof(narrow));
  }

  // Entries above the lowest level: they point at the next table (pmd_populate() and its like).
  uint64_t TableEntry(Pfn table, int level) const;
  bool TablePresent(uint64_t entry) const { return (entry & table_mask_) == table_bits_; }
  Pfn TableOf(uint64_t entry) const { return Pfn((entry & address_mask_) >> 12); }
  // Whether an entry above the lowest level is valid and maps memory itself: a large page of x86, a block of ARM64.
  bool IsBlock(uint64_t entry, int level) const {
    if (arm64_) return (entry & 3) == 1 && level > 1 && level < 4;
    return (entry & 0x81) == 0x81 && level == 2;
  }
  // Where such a block starts.
  PhysAddr BlockAddress(uint64_t entry, int level) const { return PhysAddr(entry & address_mask_ & ~(coverage(level) - 1)); }

  // Entries of level 2 that map a huge page themselves, of coverage(2) bytes (pmd_trans_huge(), pmd_mkhuge(), pmd_pfn(), pmd_modify()). The
  // functions below that are about one bit work on them as well.
  bool Huge(uint64_t entry) const { return arm64_ ? Present(entry) && (entry & 2) == 0 : (entry & kX86PageSize) != 0; }
  uint64_t MkHuge(Pte pte) const { return (arm64_ ? pte & ~Pte{2} : pte | kX86PageSize) & ~(address_mask_ & (coverage(2) - 1)); }
  Pfn HugePfn(uint64_t entry) const { return Pfn(PfnOf(entry).raw() & ~(uint64_t{entries(1)} - 1)); }
  // ARM64: one of 16 neighbours that map one run of memory (pte_mkcont()).
  uint64_t MkContiguous(uint64_t entry) const { return entry | contiguous_; }
  uint64_t ModifyHuge(uint64_t entry, uint64_t protection) const { return MkHuge(Modify(entry, protection)); }

  // vm_get_page_prot(): the protection bits for memory with these VM_READ 1, VM_WRITE 2, VM_EXEC 4, VM_SHARED 8.
  uint64_t Protection(uint64_t vm_flags) const;

  Pte Make(Pfn pfn, uint64_t protection) const { return Invert((pfn.raw() << 12) | protection); }  // mk_pte()
  Pfn PfnOf(Pte pte) const { return Pfn((Invert(pte) & address_mask_) >> 12); }

  bool None(Pte pte) const { return (pte & ~none_ignored_) == 0; }
  bool Present(Pte pte) const { return (pte & present_mask_) != 0; }  // To the kernel: PROT_NONE entries are.
  bool Valid(Pte pte) const { return (pte & 1) != 0; }                // To the processor.
  bool Writable(Pte pte) const { return (pte & write_) != 0; }        // pte_write()
  bool Young(Pte pte) const { return (pte & accessed_) != 0; }
  bool Special(Pte pte) const { return (pte & special_) != 0; }
  bool Dirty(Pte pte) const { return (pte & dirty_) != 0 || HardwareDirty(pte); }

  Pte MkYoung(Pte pte) const { return pte | accessed_; }
  Pte MkOld(Pte pte) const { return pte & ~accessed_; }
  Pte MkSpecial(Pte pte) const { return pte | special_; }
  Pte MkDirty(Pte pte) const {
    pte |= dirty_;
    return Writable(pte) ? pte & ~read_only_ : pte;
  }
  Pte MkClean(Pte pte) const { return (pte & ~dirty_) | read_only_; }
  Pte MkWrite(Pte pte) const { return (pte | write_) & ~read_only_; }
  Pte WrProtect(Pte pte) const {
    if (HardwareDirty(pte)) pte |= dirty_;
    return (pte & ~write_) | read_only_;
  }
  Pte Modify(Pte pte, uint64_t protection) const;  // pte_modify()

  // Entries of pages that were swapped out: neither none nor present; the area and the slot in the layout's own bits
  // (__swp_entry_to_pte()).
  bool IsSwap(Pte pte) const { return !Present(pte) && !None(pte); }
  Pte MakeSwap(uint32_t area, uint32_t slot) const;
  uint32_t SwapArea(Pte pte) const;
  uint32_t SwapSlot(Pte pte) const;
  // Whether the page was exclusive when it went (pte_swp_exclusive()); only ARM64 has a bit for that.
  Pte MkSwapExclusive(Pte pte) const { return pte | swap_exclusive_; }
  Pte ClearSwapExclusive(Pte pte) const { return pte & ~swap_exclusive_; }
  bool SwapExclusive(Pte pte) const { return (pte & swap_exclusive_) != 0; }
  uint64_t most_swap_slots() const { return most_swap_slots_; }  // That an entry can name.

  // What the processor does with the entry: whether the access goes through, and the entry afterwards, with the accessed and dirty bits
  // that it sets itself. `hardware_flags`: it manages those bits (always on x86-32).
  struct Checked {
    PteVerdict verdict;
    Pte pte;
  };
  Checked Check(Pte pte, bool write, bool execute, bool hardware_flags) const {
    if (!Valid(pte)) return {PteVerdict::kNotPresent, pte};
    if ((pte & accessed_) == 0 && !hardware_flags) return {PteVerdict::kAccessFlag, pte};
    if ((pte & user_) == 0 || (execute && (pte & no_execute_) != 0)) return {PteVerdict::kPermission, pte};
    if (!write) return {PteVerdict::kAllowed, pte | accessed_};
    if ((pte & write_) == 0) return {PteVerdict::kPermission, pte};
    if (arm64_) {
      if ((pte & read_only_) != 0) {
        if (!hardware_flags) return {PteVerdict::kPermission, pte};
        pte &= ~read_only_;
      }
      return {PteVerdict::kAllowed, pte | accessed_};
    }
    return {PteVerdict::kAllowed, pte | accessed_ | dirty_};
  }

  // "present user writable dirty accessed": the bits of an entry of that level in words.
  std::string Decode(uint64_t entry, int level) const;

 private:
  static constexpr uint64_t kX86PageSize = 1u << 7;  // _PAGE_PSE

  bool HardwareDirty(Pte pte) const { return arm64_ && (pte & (write_ | read_only_)) == write_; }
  // PAE keeps the frame number of a PROT_NONE entry inverted, so that a speculating processor finds no memory behind it.
  uint64_t Invert(uint64_t entry) const {
    return invert_ && (entry & 1) == 0 && (entry & present_mask_) != 0 ? entry ^ address_mask_ : entry;
  }

  bool arm64_;
  bool wide_;
  bool invert_;
  int levels_;
  int bits_[6] = {};
  int shift_[6] = {};
  uint64_t address_mask_;
  uint64_t table_mask_;
  uint64_t table_bits_;
  uint64_t present_mask_;
  uint64_t none_ignored_;
  uint64_t write_;
  uint64_t user_;
  uint64_t accessed_;
  uint64_t dirty_;
  uint64_t special_;
  uint64_t read_only_ = 0;
  uint64_t no_execute_ = 0;
  uint64_t swap_exclusive_ = 0;
  uint64_t contiguous_ = 0;
  uint64_t most_swap_slots_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_ARCH_PAGE_TABLE_FORMAT_H_
