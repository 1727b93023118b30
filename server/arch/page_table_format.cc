#include "server/arch/page_table_format.h"

#include "absl/strings/str_cat.h"

namespace mmlab {
namespace {

// x86: _PAGE_*.
constexpr uint64_t kX86Present = 1u << 0;
constexpr uint64_t kX86Rw = 1u << 1;
constexpr uint64_t kX86User = 1u << 2;
constexpr uint64_t kX86Accessed = 1u << 5;
constexpr uint64_t kX86Dirty = 1u << 6;
constexpr uint64_t kX86ProtNone = 1u << 8;  // The global bit, which means nothing in an entry that is not present.
constexpr uint64_t kX86Special = 1u << 9;
constexpr uint64_t kX86PageTable = kX86Present | kX86Rw | kX86User | kX86Accessed | kX86Dirty;
constexpr uint64_t kPaeAddressMask = 0x0000'000f'ffff'f000;
constexpr uint64_t kTwoLevelAddressMask = 0xffff'f000;
constexpr uint64_t kPaeNx = uint64_t{1} << 63;

// ARM64: PTE_*.
constexpr uint64_t kArmValid = uint64_t{1} << 0;
constexpr uint64_t kArmTypePage = uint64_t{3};
constexpr uint64_t kArmUser = uint64_t{1} << 6;      // AP[1]
constexpr uint64_t kArmReadOnly = uint64_t{1} << 7;  // AP[2]
constexpr uint64_t kArmShared = uint64_t{3} << 8;    // SH, inner shareable.
constexpr uint64_t kArmAf = uint64_t{1} << 10;
constexpr uint64_t kArmNotGlobal = uint64_t{1} << 11;
constexpr uint64_t kArmContiguous = uint64_t{1} << 52;
constexpr uint64_t kArmDbm = uint64_t{1} << 51;  // PTE_WRITE
constexpr uint64_t kArmPxn = uint64_t{1} << 53;
constexpr uint64_t kArmUxn = uint64_t{1} << 54;
constexpr uint64_t kArmDirty = uint64_t{1} << 55;
constexpr uint64_t kArmSpecial = uint64_t{1} << 56;
constexpr uint64_t kArmProtNone = uint64_t{1} << 58;
constexpr uint64_t kArmTablePxn = uint64_t{1} << 59;
constexpr uint64_t kArmAttributes = uint64_t{7} << 2;  // MAIR index; normal memory is 0.
constexpr uint64_t kArmAddressMask = 0x0000'ffff'ffff'f000;
constexpr uint64_t kArmDefault = kArmAf | kArmShared | kArmNotGlobal | kArmPxn;

// Where entries of swapped-out pages have their area and slot.
constexpr int kTwoLevelSwapArea = 1;
constexpr int kTwoLevelSwapSlot = 9;
constexpr int kPaeSwapArea = 59;
constexpr int kPaeSwapSlot = 9;  // Inverted, like the frame number of a PROT_NONE entry.
constexpr int kArmSwapArea = 3;
constexpr int kArmSwapSlot = 8;
constexpr uint64_t kArmSwapExclusive = uint64_t{1} << 2;
constexpr uint64_t kSwapAreaMask = 31;
constexpr uint64_t kPaeSwapSlotMask = (uint64_t{1} << 50) - 1;

constexpr uint64_t kRead = 1;
constexpr uint64_t kWrite = 2;
constexpr uint64_t kExec = 4;
constexpr uint64_t kShared = 8;

}  // namespace

PageTableFormat::PageTableFormat(const Layout& layout)
    : arm64_(layout.kind == LayoutKind::kArm64), wide_(layout.kind != LayoutKind::kX86_32), invert_(layout.kind == LayoutKind::kX86_32Pae) {
  if (arm64_) {
    levels_ = layout.table_levels;
    for (int level = 1; level <= levels_; ++level) bits_[level] = 9;
    address_mask_ = kArmAddressMask;
    table_mask_ = table_bits_ = kArmTypePage;
    present_mask_ = kArmValid | kArmProtNone;
    none_ignored_ = 0;
    write_ = kArmDbm;
    user_ = kArmUser;
    accessed_ = kArmAf;
    dirty_ = kArmDirty;
    special_ = kArmSpecial;
    read_only_ = kArmReadOnly;
    no_execute_ = kArmUxn;
    swap_exclusive_ = kArmSwapExclusive;
    contiguous_ = kArmContiguous;
    most_swap_slots_ = uint64_t{1} << 31;  // 2^50 in the entry; ours are numbered with 32 bits.
  } else {
    const bool pae = wide_;
    levels_ = pae ? 3 : 2;
    bits_[1] = pae ? 9 : 10;
    bits_[2] = pae ? 9 : 10;
    bits_[3] = pae ? 2 : 0;
    address_mask_ = pae ? kPaeAddressMask : kTwoLevelAddressMask;
    table_mask_ = kX86Present | kX86PageSize;
    table_bits_ = kX86Present;
    present_mask_ = kX86Present | kX86ProtNone;
    none_ignored_ = kX86Dirty | kX86Accessed;  // An erratum of some processors sets these in entries that are not present.
    write_ = kX86Rw;
    user_ = kX86User;
    accessed_ = kX86Accessed;
    dirty_ = kX86Dirty;
    special_ = kX86Special;
    no_execute_ = pae ? kPaeNx : 0;
    most_swap_slots_ = uint64_t{1} << (pae ? 27 : 23);
  }
  shift_[1] = 12;
  for (int level = 2; level <= levels_ + 1; ++level) shift_[level] = shift_[level - 1] + bits_[level - 1];
}

uint64_t PageTableFormat::TableEntry(Pfn table, int level) const {
  const uint64_t address = table.raw() << 12;
  if (arm64_) return address | kArmTypePage | kArmTablePxn;
  // The four entries of PAE's top level know no protection.
  if (level == 3) return address | kX86Present;
  return address | kX86PageTable;
}

uint64_t PageTableFormat::Protection(uint64_t vm_flags) const {
  const bool any = (vm_flags & (kRead | kWrite | kExec)) != 0;
  const bool shared_write = (vm_flags & (kWrite | kShared)) == (kWrite | kShared);
  if (!arm64_) {
    // Never _PAGE_NX: vm_get_page_prot() of x86-32 keeps the protection in 32 bits, where PAE's bit 63 gets lost.
    if (!any) return kX86ProtNone | kX86Accessed;
    return kX86Present | kX86User | kX86Accessed | (shared_write ? kX86Rw : 0);
  }
  if (!any) return kArmDefault | kArmProtNone | kArmReadOnly | kArmUxn;
  const uint64_t execute_never = (vm_flags & kExec) != 0 ? 0 : kArmUxn;
  return kArmDefault | kArmTypePage | kArmUser | kArmReadOnly | execute_never | (shared_write ? kArmDbm : 0);
}

Pte PageTableFormat::Modify(Pte pte, uint64_t protection) const {
  if (arm64_) {
    constexpr uint64_t kMask = kArmUser | kArmPxn | kArmUxn | kArmReadOnly | kArmProtNone | kArmTypePage | kArmDbm | kArmAttributes;
    if (HardwareDirty(pte)) pte |= kArmDirty;
    pte = (pte & ~kMask) | (protection & kMask);
    return (pte & kArmDirty) != 0 ? MkDirty(pte) : pte;
  }
  // _PAGE_CHG_MASK: the frame and what the kernel and the processor noted survive.
  const uint64_t kept = address_mask_ | kX86Special | kX86Accessed | kX86Dirty;
  return Invert((Invert(pte) & kept) | protection);
}

Pte PageTableFormat::MakeSwap(uint32_t area, uint32_t slot) const {
  if (arm64_) return uint64_t{area} << kArmSwapArea | uint64_t{slot} << kArmSwapSlot;
  if (wide_) return (~uint64_t{slot} & kPaeSwapSlotMask) << kPaeSwapSlot | uint64_t{area} << kPaeSwapArea;
  return uint64_t{area} << kTwoLevelSwapArea | uint64_t{slot} << kTwoLevelSwapSlot;
}

uint32_t PageTableFormat::SwapArea(Pte pte) const {
  return static_cast<uint32_t>(pte >> (arm64_ ? kArmSwapArea : wide_ ? kPaeSwapArea : kTwoLevelSwapArea) & kSwapAreaMask);
}

uint32_t PageTableFormat::SwapSlot(Pte pte) const {
  if (arm64_) return static_cast<uint32_t>(pte >> kArmSwapSlot);
  if (wide_) return static_cast<uint32_t>(~(pte >> kPaeSwapSlot) & kPaeSwapSlotMask);
  return static_cast<uint32_t>(pte >> kTwoLevelSwapSlot);
}

std::string PageTableFormat::Decode(uint64_t entry, int level) const {
  std::string text;
  const auto add = [&text](bool condition, absl::string_view word) {
    if (condition) absl::StrAppend(&text, text.empty() ? "" : " ", word);
  };
  const bool block = IsBlock(entry, level);
  if (level > 1 && !block) return TablePresent(entry) ? "table" : "none";
  if (None(entry)) return "none";
  if (IsSwap(entry))
    return absl::StrCat("swap area ", SwapArea(entry), " slot ", SwapSlot(entry), SwapExclusive(entry) ? " exclusive" : "");
  add(block, "block");
  add(Valid(entry), "present");
  add(!Valid(entry) && Present(entry), "prot_none");
  add((entry & user_) != 0, "user");
  add(Writable(entry), "writable");
  add(arm64_ && (entry & read_only_) != 0, "read_only");
  add(Dirty(entry), "dirty");
  add(Young(entry), "accessed");
  add(no_execute_ != 0 && (entry & no_execute_) != 0, "no_execute");
  add(Special(entry), "special");
  add((entry & contiguous_) != 0, "contiguous");
  return text;
}

}  // namespace mmlab
