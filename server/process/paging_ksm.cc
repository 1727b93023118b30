// What KSM does to pages and entries. Linux: mm/ksm.c (write_protect_page, replace_page, break_ksm).
#include <algorithm>
#include <array>

#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/physical/contents.h"
#include "server/physical/lru_lists.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/paging.h"
#include "server/process/paging_walk.h"

namespace mmlab {
namespace {

using PageBytes = std::array<uint8_t, 4096>;

}  // namespace

std::optional<Pfn> Paging::AnonPageAt(const AddressSpace& mm, VirtAddr address) const {
  const uint8_t* table = FindTable(mm, address, 1);
  if (table == nullptr) {
    const uint64_t entry = HugeEntryAt(mm, address);
    if (entry == 0 || IsHugeZero(entry) || memory_.frame(format_.HugePfn(entry)).state != FrameState::kAnon) return std::nullopt;
    return format_.HugePfn(entry) + PageCount(format_.IndexOf(address, 1));
  }
  const Pte pte = format_.Load(table, format_.IndexOf(address, 1));
  Pfn pfn;
  const Frame* frame = format_.None(pte) ? nullptr : NormalPage(pte, &pfn);
  if (frame == nullptr || frame->state != FrameState::kAnon) return std::nullopt;
  return pfn;
}

std::optional<Paging::AnonPage> Paging::NextAnonPage(const AddressSpace& mm, VirtRange range) const {
  const uint64_t page = layout_.page_size.bytes().raw();
  uint64_t address = range.start.raw();
  const uint64_t end = range.end.raw();
  while (address < end) {
    const uint8_t* table = TableBytes(mm.pgd);
    int level = format_.levels();
    for (; level > 1; --level) {
      const uint64_t entry = format_.Load(table, format_.IndexOf(VirtAddr(address), level));
      if (!format_.TablePresent(entry)) break;
      table = TableBytes(format_.TableOf(entry));
    }
    // Up to where what stopped the walk ends; a huge entry and a lowest table are looked at page by page.
    const uint64_t coverage = format_.coverage(std::max(level, 2));
    const uint64_t next = std::min(end, (address & ~(coverage - 1)) + coverage);
    if (level <= 2) {
      for (; address < next; address += page) {
        if (const std::optional<Pfn> pfn = AnonPageAt(mm, VirtAddr(address)); pfn.has_value()) return AnonPage{VirtAddr(address), *pfn};
        if (level == 2) break;  // Nothing, or the huge zero page: no page of it differs.
      }
    }
    address = next;
  }
  return std::nullopt;
}

uint64_t Paging::ContentHash(Pfn pfn) const {
  PageBytes bytes;
  memory_.contents().Read(pfn, 0, bytes.data(), bytes.size());
  StateHasher hasher;
  hasher.AddBytes(bytes.data(), bytes.size());
  return hasher.value();
}

bool Paging::SameContent(Pfn a, Pfn b) const {
  PageBytes left, right;
  memory_.contents().Read(a, 0, left.data(), left.size());
  memory_.contents().Read(b, 0, right.data(), right.size());
  return left == right;
}

bool Paging::IsZero(Pfn pfn) const {
  PageBytes bytes;
  memory_.contents().Read(pfn, 0, bytes.data(), bytes.size());
  return bytes == PageBytes{};
}

// page_stable_node(). The node's number stands where other pages have their offset.
uint64_t Paging::KsmNodeOf(Pfn pfn) const {
  const Frame& frame = memory_.frame(pfn);
  return (frame.flags & kPgKsm) != 0 ? frame.index : 0;
}

// set_page_stable_node()
void Paging::MakeKsmPage(Pfn pfn, uint64_t node) {
  Frame& frame = memory_.frame(pfn);
  frame.flags |= kPgKsm | kPgDirty;
  frame.mapping = 0;
  frame.index = node;
  memory_.lru().MarkAccessed(pfn);
}

// write_protect_page(): false when somebody else holds the page.
bool Paging::ProtectForKsm(VmArea& vma, VirtAddr address, Pfn pfn) {
  if (IsCompound(memory_.frame(pfn)) && !SplitHugePage(HugeHead(pfn))) return false;
  uint8_t* table = FindTable(*vma.mm, address, 1);
  if (table == nullptr) return false;
  const uint32_t index = format_.IndexOf(address, 1);
  const Pte pte = format_.Load(table, index);
  Frame& frame = memory_.frame(pfn);
  if (!format_.Writable(pte) && !format_.Dirty(pte) && (frame.flags & kPgAnonExclusive) == 0) return true;
  if (frame.refcount != frame.mapcount + ((frame.flags & kPgSwapCache) != 0 ? 1 : 0)) return false;
  frame.flags &= ~uint32_t{kPgAnonExclusive};
  if (format_.Dirty(pte)) frame.flags |= kPgDirty;
  format_.Store(table, index, format_.MkClean(format_.WrProtect(pte)));
  return true;
}

// replace_page()
void Paging::ReplaceForKsm(VmArea& vma, VirtAddr address, Pfn pfn, std::optional<Pfn> merged) {
  uint8_t* table = FindTable(*vma.mm, address, 1);
  const uint64_t protection = PageProtection(vma);
  Frame& old = memory_.frame(pfn);
  if (merged.has_value()) {
    Frame& frame = memory_.frame(*merged);
    ++frame.refcount;
    ++frame.mapcount;
    if ((vma.flags & (kVmLocked | kVmSpecial)) == kVmLocked) MlockPage(*merged, frame);
  } else {
    --vma.mm->rss[static_cast<size_t>(RssKind::kAnon)];
  }
  const Pte pte =
      merged.has_value() ? format_.Make(*merged, protection) : format_.MkSpecial(format_.Make(memory_.zero_frame(), protection));
  format_.Store(table, format_.IndexOf(address, 1), pte);
  RemoveRmap(pfn, old, vma);
  PutPage(pfn, old);
}

bool Paging::MergeWith(VmArea& vma, VirtAddr address, Pfn pfn, Pfn merged) {
  if (!ProtectForKsm(vma, address, pfn)) return false;
  ReplaceForKsm(vma, address, pfn, merged);
  return true;
}

bool Paging::MergeWithZero(VmArea& vma, VirtAddr address, Pfn pfn) {
  if (!ProtectForKsm(vma, address, pfn)) return false;
  ReplaceForKsm(vma, address, pfn, std::nullopt);
  return true;
}

// try_to_merge_two_pages(): the first takes the place of the second.
std::optional<Pfn> Paging::MergeTwo(VmArea& vma, VirtAddr address, Pfn pfn, VmArea& other_vma, VirtAddr other_address, Pfn other) {
  if (!ProtectForKsm(vma, address, pfn) || !ProtectForKsm(other_vma, other_address, other)) return std::nullopt;
  ReplaceForKsm(other_vma, other_address, other, pfn);
  return pfn;
}

// unmerge_ksm_pages(): a copy of its own for each merged page of the range (break_ksm()).
Errno Paging::UnmergeRange(VmArea& vma, VirtRange range) {
  VirtAddr next;
  for (VirtAddr start = range.start; start < range.end; start = next) {
    const std::optional<AnonPage> found = NextAnonPage(*vma.mm, {start, range.end});
    if (!found.has_value()) return Errno::kOk;
    const VirtAddr address = found->address;
    const Pfn merged = found->pfn;
    next = address + layout_.page_size.bytes();
    if ((memory_.frame(merged).flags & kPgKsm) == 0) continue;
    vm_stat_.Count(VmEvent::kPgfault);
    Frame& old = memory_.frame(merged);
    ++old.refcount;  // Held, so that reclaim does not take it when the copy finds memory short.
    const std::optional<Pfn> copy = memory_.AllocPages(kGfpHighuserMovable, PageOrder(0));
    --old.refcount;
    if (!copy.has_value()) return Errno::kENOMEM;
    memory_.contents().Copy(merged, *copy);
    vm_stat_.Count(VmEvent::kCowKsm);
    AddNewAnonRmap(*copy, memory_.frame(*copy), vma, address);
    // It is unshared, not written: the entry stays write-protected.
    format_.Store(FindTable(*vma.mm, address, 1), format_.IndexOf(address, 1), format_.MkYoung(format_.Make(*copy, PageProtection(vma))));
    RemoveRmap(merged, old, vma);
    PutPage(merged, old);
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kKsmBreak, "merging is undone: the page gets a frame of its own")
          .Address("address", address)
          .Frame("from", merged)
          .Frame("to", *copy);
    }
  }
  return Errno::kOk;
}

}  // namespace mmlab
