#ifndef MMLAB_SERVER_PROCESS_ANON_VMA_H_
#define MMLAB_SERVER_PROCESS_ANON_VMA_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/btree_map.h"
#include "server/kernel/kernel_objects.h"
#include "server/process/vm_area.h"

namespace mmlab {

// Ties anonymous pages to the VMAs that may map them. Linux: struct anon_vma, mm/rmap.c.
//
// Which one a VMA has decides what it may merge with, so identity and sharing follow the kernel exactly: prepared at the first anonymous
// page, taken over from a compatible neighbour, cloned by split and move, one of its own for each VMA of a forked child.
class AnonVma {
 public:
  uint32_t id = 0;  // Frame::mapping of its pages; never 0. Used again after the last VMA left.
  AnonVma* root = nullptr;
  AnonVma* parent = nullptr;                // Itself for a root.
  int references = 1;                       // One for the chain of VMAs, one for each descendant that has this as root.
  int linked_vmas = 0;                      // VMAs whose anon_vma_chain holds it.
  int children = 0;                         // num_children: anon_vmas whose parent it is; a root counts itself.
  int active_vmas = 0;                      // num_active_vmas: VMAs whose anon_vma it is.
  absl::btree_map<uint64_t, VmArea*> vmas;  // rb_root: those whose chain holds it, by VmArea::rmap_number.
  KernelObjectRef object;                   // Its struct anon_vma.
};

// All AnonVmas of a machine, by id.
class AnonVmaTable {
 public:
  void SetKernelObjects(KernelObjects* objects) { objects_ = objects; }
  KernelObjects* kernel_objects() const { return objects_; }  // Null: objects are not accounted.
  AnonVma& Allocate();
  void Put(AnonVma& anon_vma);  // put_anon_vma()
  uint64_t NextRmapNumber() { return ++rmap_numbers_; }
  const AnonVma* Find(uint32_t id) const { return id < by_id_.size() ? by_id_[id].get() : nullptr; }
  size_t size() const { return by_id_.size() - free_ids_.size() - (by_id_.empty() ? 0 : 1); }

 private:
  std::vector<std::unique_ptr<AnonVma>> by_id_;  // Element 0 stays empty.
  std::vector<uint32_t> free_ids_;
  uint64_t rmap_numbers_ = 0;
  KernelObjects* objects_ = nullptr;
};

// anon_vma_prepare(): gives the VMA an anon_vma if it has none, a neighbour's where find_mergeable_anon_vma() allows. Idempotent.
void AnonVmaPrepare(VmArea& vma);
// anon_vma_clone(): links `to` to all that `from` is linked to. Where to.anon_vma is null and from's is not (fork), it may take over one
// that no VMA uses any more.
void AnonVmaClone(VmArea& to, const VmArea& from);
// anon_vma_fork(): the child's VMA gets the parent's chain and one of its own.
void AnonVmaFork(VmArea& child, const VmArea& parent);
// unlink_anon_vmas()
void UnlinkAnonVmas(VmArea& vma);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_ANON_VMA_H_
