// A page gets another frame and all its users follow. Linux: mm/migrate.c, try_to_migrate() of mm/rmap.c.
#include "server/base/check.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/physical_memory.h"
#include "server/physical/vm_stat.h"
#include "server/process/address_space.h"
#include "server/process/paging.h"
#include "server/process/paging_rmap_walk.h"

namespace mmlab {
namespace {

// What a page takes along (folio_migrate_flags()).
constexpr uint32_t kMovedFlags = kPgReferenced | kPgUptodate | kPgDirty | kPgActive | kPgUnevictable | kPgMlocked | kPgSwapBacked |
                                 kPgSwapCache | kPgAnonExclusive | kPgWorkingset;

}  // namespace

// The entry as remove_migration_pte() makes it anew: protection of the VMA, and what the old one said of use and writing.
void Paging::MoveEntry(VmArea& vma, uint8_t* table, uint32_t index, Pfn from, Pfn to) {
  const Pte old = format_.Load(table, index);
  Frame& frame = memory_.frame(from);
  const bool dirty = format_.Dirty(old);
  if (dirty && frame.state == FrameState::kAnon) frame.flags |= kPgDirty;
  if (dirty && frame.state != FrameState::kAnon) {
    if (Inode* inode = files_.FindById(static_cast<uint32_t>(frame.mapping)); inode != nullptr) files_.MarkDirty(*inode, from);
  }
  Pte pte = format_.Make(to, PageProtection(vma));
  pte = format_.Young(old) ? format_.MkYoung(pte) : format_.MkOld(pte);
  if (dirty) pte = format_.MkDirty(pte);
  pte = format_.Writable(old) ? MaybeWritable(pte, vma) : format_.WrProtect(pte);
  format_.Store(table, index, pte);
}

bool Paging::MovePage(Pfn from, Pfn to) {
  Frame& source = memory_.frame(from);
  const bool cached = (source.state == FrameState::kFile || source.state == FrameState::kShmem) && source.mapping != 0;
  const bool swap_cached = (source.flags & kPgSwapCache) != 0;
  if (source.refcount != 1 + source.mapcount + (cached || swap_cached ? 1 : 0)) return false;
  // Only who may wait comes with a page that is being written.
  if ((source.flags & kPgWriteback) != 0) files_.WaitForWrites(files_.pages_under_way());
  // Entries of the kernel's own (init's, of the vdso) are in no process's tables.
  int found = 0;
  ForEachMapping(from, source, [&](VmArea&, const uint8_t*, uint32_t) { ++found; });
  if (found != source.mapcount) return false;

  ForEachMapping(from, source, [&](VmArea& vma, uint8_t* table, uint32_t index) { MoveEntry(vma, table, index, from, to); });
  memory_.contents().Copy(from, to);
  if (cached) files_.ReplacePage(from, to);
  if (swap_cached) files_.swap().ReplacePage(from, to);
  if ((source.flags & kPgMlocked) != 0 && source.mapcount > 0) {
    vm_stat_.Count(VmEvent::kUnevictablePgsStranded);
    vm_stat_.Count(VmEvent::kUnevictablePgsMlocked);
  }
  Frame& target = memory_.frame(to);
  target.state = source.state;
  target.flags = source.flags & kMovedFlags;
  target.memcg = source.memcg;
  target.refcount = source.refcount - 1;
  target.mapcount = source.mapcount;
  target.index = source.index;
  target.mapping = source.mapping;
  if ((source.flags & kPgUnevictable) != 0) target.prev = source.prev;  // mlock_count
  source.flags = 0;
  source.memcg = 0;  // mem_cgroup_migrate(): the charge went with the page.
  source.mapcount = 0;
  source.refcount = 1;
  return true;
}

}  // namespace mmlab
