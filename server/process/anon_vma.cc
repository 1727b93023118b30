#include "server/process/anon_vma.h"

#include <algorithm>

#include "absl/container/inlined_vector.h"
#include "server/base/check.h"
#include "server/process/address_space.h"

namespace mmlab {
namespace {

constexpr size_t kMaxIds = size_t{1} << 24;  // Frame::mapping has 24 bits.

void Link(VmArea& vma, AnonVma& anon_vma) {
  vma.anon_vma_chain.PushFront(&anon_vma);
  ++anon_vma.linked_vmas;
  if (vma.rmap_number == 0) vma.rmap_number = vma.mm->anon_vmas->NextRmapNumber();
  anon_vma.vmas.emplace(vma.rmap_number, &vma);
  if (KernelObjects* objects = vma.mm->anon_vmas->kernel_objects()) objects->TakeOne(KernelObject::kAnonVmaChain);
}

// anon_vma_compatible(): whether two neighbours could one day merge, after mprotect made their permissions equal.
bool Compatible(const VmArea& lower, const VmArea& upper) {
  if (lower.end != upper.start || lower.file != upper.file) return false;
  if (((lower.flags ^ upper.flags) & ~kVmAccessFlags) != 0) return false;
  return upper.pgoff == lower.IndexOf(upper.start, lower.mm->page_size);
}

// reusable_anon_vma(): only one that did not go through a fork.
AnonVma* Reusable(const VmArea& old, const VmArea& lower, const VmArea& upper) {
  if (!Compatible(lower, upper) || old.anon_vma_chain.size() != 1) return nullptr;
  return old.anon_vma;
}

AnonVma* FindMergeable(VmArea& vma) {
  const VmaTree& tree = vma.mm->vmas;
  if (const VmArea* next = tree.Next(vma); next != nullptr) {
    if (AnonVma* found = Reusable(*next, vma, *next)) return found;
  }
  if (const VmArea* previous = tree.Previous(vma); previous != nullptr) return Reusable(*previous, *previous, vma);
  return nullptr;
}

}  // namespace

AnonVma& AnonVmaTable::Allocate() {
  if (by_id_.empty()) by_id_.emplace_back();
  uint32_t id = 0;
  if (free_ids_.empty()) {
    id = static_cast<uint32_t>(by_id_.size());
    MMLAB_CHECK(id < kMaxIds);
    by_id_.emplace_back();
  } else {
    id = free_ids_.back();
    free_ids_.pop_back();
  }
  by_id_[id] = std::make_unique<AnonVma>();
  AnonVma& made = *by_id_[id];
  made.id = id;
  made.root = &made;
  made.parent = &made;
  made.object = KernelObjectRef(objects_, KernelObject::kAnonVma);
  return made;
}

void AnonVmaTable::Put(AnonVma& anon_vma) {
  MMLAB_CHECK(anon_vma.references > 0);
  if (--anon_vma.references > 0) return;
  AnonVma* root = anon_vma.root;
  const bool is_root = root == &anon_vma;
  free_ids_.push_back(anon_vma.id);
  by_id_[anon_vma.id].reset();
  if (!is_root) Put(*root);
}

void AnonVmaPrepare(VmArea& vma) {
  if (vma.anon_vma != nullptr) return;
  AnonVma* anon_vma = FindMergeable(vma);
  if (anon_vma == nullptr) {
    anon_vma = &vma.mm->anon_vmas->Allocate();
    ++anon_vma->children;
  }
  vma.anon_vma = anon_vma;
  Link(vma, *anon_vma);
  ++anon_vma->active_vmas;
}

void AnonVmaClone(VmArea& to, const VmArea& from) {
  for (size_t i = from.anon_vma_chain.size(); i-- > 0;) {
    AnonVma& anon_vma = *from.anon_vma_chain.begin()[i];
    Link(to, anon_vma);
    if (to.anon_vma == nullptr && from.anon_vma != nullptr && anon_vma.children < 2 && anon_vma.active_vmas == 0) to.anon_vma = &anon_vma;
  }
  if (to.anon_vma != nullptr) ++to.anon_vma->active_vmas;
}

void AnonVmaFork(VmArea& child, const VmArea& parent) {
  if (parent.anon_vma == nullptr) return;
  child.anon_vma = nullptr;
  AnonVmaClone(child, parent);
  if (child.anon_vma != nullptr) return;
  AnonVma& made = child.mm->anon_vmas->Allocate();
  ++made.active_vmas;
  made.root = parent.anon_vma->root;
  made.parent = parent.anon_vma;
  ++made.root->references;
  child.anon_vma = &made;
  Link(child, made);
  ++made.parent->children;
}

void UnlinkAnonVmas(VmArea& vma) {
  absl::InlinedVector<AnonVma*, 1> empty;
  KernelObjects* objects = vma.mm->anon_vmas->kernel_objects();
  for (AnonVma* anon_vma : vma.anon_vma_chain) {
    if (objects != nullptr) objects->DropOne(KernelObject::kAnonVmaChain);
    anon_vma->vmas.erase(vma.rmap_number);
    if (--anon_vma->linked_vmas > 0) continue;
    --anon_vma->parent->children;
    empty.push_back(anon_vma);
  }
  vma.anon_vma_chain.clear();
  if (vma.anon_vma != nullptr) {
    --vma.anon_vma->active_vmas;
    vma.anon_vma = nullptr;
  }
  for (AnonVma* anon_vma : empty) vma.mm->anon_vmas->Put(*anon_vma);
}

}  // namespace mmlab
