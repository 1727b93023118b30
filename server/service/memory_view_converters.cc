#include "server/service/memory_view_converters.h"

#include <algorithm>
#include <string>

#include "server/arch/entry_fields.h"
#include "server/arch/kernel_layout.h"
#include "server/files/open_file.h"
#include "server/host/names.h"
#include "server/physical/page_allocator.h"
#include "server/process/address_space.h"
#include "server/process/anon_vma.h"
#include "server/process/mm_view.h"
#include "server/process/processes.h"
#include "server/service/view_converters.h"

namespace mmlab {
namespace {

int64_t Signed(uint64_t value) { return static_cast<int64_t>(value); }
int64_t Signed(PageCount pages) { return static_cast<int64_t>(pages.raw()); }

int64_t Counter(const AddressSpace& mm, RssKind kind) { return mm.rss[static_cast<size_t>(kind)]; }

// What the tasks that use the address space have not added to its totals yet.
int64_t PendingPages(const Processes& processes, const AddressSpace& mm) {
  int64_t pages = 0;
  for (const auto& [pid, task] : processes.all()) {
    if (task->mm.get() != &mm) continue;
    for (const int64_t count : task->rss.count) pages += count;
  }
  return pages;
}

void CountsToProto(const Processes& processes, const Layout& layout, const AddressSpace& mm, v1::AddressSpace* proto) {
  proto->set_mm_users(mm.mm_users);
  proto->set_mm_count(processes.MmCount(mm));
  proto->set_map_count(static_cast<int32_t>(mm.map_count().raw()));
  proto->set_nr_ptes(Signed(mm.table_pages[1]));
  proto->set_nr_pmds(Signed(mm.table_pages[2]));
  proto->set_pgtables_bytes(Signed((mm.table_pages[1] + mm.table_pages[2] + mm.table_pages[3]) << layout.page_size.shift()));
  proto->set_hiwater_rss_pages(Signed(mm.hiwater_rss));
  proto->set_hiwater_vm_pages(Signed(mm.hiwater_vm));
  proto->set_total_vm_pages(Signed(mm.total_vm));
  proto->set_locked_vm_pages(Signed(mm.locked_vm));
  proto->set_pinned_vm_pages(Signed(mm.pinned_vm));
  proto->set_data_vm_pages(Signed(mm.data_vm));
  proto->set_exec_vm_pages(Signed(mm.exec_vm));
  proto->set_stack_vm_pages(Signed(mm.stack_vm));
  v1::RssStat* rss = proto->mutable_rss_stat();
  rss->set_file_pages(Counter(mm, RssKind::kFile));
  rss->set_anon_pages(Counter(mm, RssKind::kAnon));
  rss->set_swap_entries(Counter(mm, RssKind::kSwap));
  rss->set_shmem_pages(Counter(mm, RssKind::kShmem));
  rss->set_pending_pages(PendingPages(processes, mm));
}

v1::VmaStoreNode* AddNode(size_t number, int64_t parent, int depth, v1::ListVmaStoreNodesResponse* proto) {
  v1::VmaStoreNode* node = proto->add_nodes();
  node->set_number(Signed(number));
  node->set_parent(parent);
  node->set_depth(depth);
  return node;
}

void SlotToProto(const MapleStoreSlot& slot, v1::MapleSlot* proto) {
  proto->set_first(slot.first);
  proto->set_last(slot.last);
  proto->set_gap_bytes(slot.gap);
  switch (slot.content) {
    case MapleStoreSlot::Content::kHole:
      proto->set_hole(true);
      break;
    case MapleStoreSlot::Content::kVma:
      proto->set_vma(slot.first);
      break;
    case MapleStoreSlot::Content::kNode:
      proto->set_child(slot.target);
      break;
  }
}

void StepToProto(const Layout& layout, const PageTableFormat& format, const WalkStep& step, v1::TranslationStep* proto) {
  const PhysAddr table = layout.page_size.StartOf(step.table);
  const EntryDescription entry = DescribeEntry(layout, step.entry, step.level);
  proto->set_level(std::string(LevelName(format, step.level)));
  proto->set_table_address(table.raw());
  proto->set_index(step.index);
  proto->set_entry_address(table.raw() + uint64_t{step.index} * static_cast<uint64_t>(format.entry_bytes()));
  proto->set_entry(step.entry);
  proto->set_kind(std::string(EntryKindName(entry.kind)));
  proto->set_target_address(entry.target.has_value() ? entry.target->raw() : 0);
  proto->set_text(entry.Text());
  for (const EntryField& field : entry.fields) {
    v1::EntryField* out = proto->add_fields();
    out->set_name(std::string(field.name));
    out->set_bit(field.bit);
    out->set_width(field.width);
    out->set_value(field.value);
    out->set_meaning(field.meaning);
  }
}

}  // namespace

void AddressSpaceToProto(const MachineView& view, const Process& process, v1::AddressSpace* proto) {
  const Machine& machine = view.machine;
  const Layout& layout = machine.layout();
  const AddressSpace& mm = *process.mm;
  const PhysAddr pgd = layout.page_size.StartOf(mm.pgd);
  proto->set_name(ProcessNameOf(view.hosted.id(), process.pid.raw()));
  proto->set_mmap_base(mm.mmap_base.raw());
  proto->set_mmap_legacy_base(mm.mmap_legacy_base.raw());
  proto->set_task_size(mm.task_size.raw());
  proto->set_highest_vm_end(HighestVmEnd(mm).raw());
  proto->set_pgd(machine.kernel_layout().VirtOf(pgd).raw());
  proto->set_pgd_physical_address(pgd.raw());
  CountsToProto(machine.processes(), layout, mm, proto);
  proto->set_def_flags(mm.def_flags);
  proto->set_start_code(mm.start_code.raw());
  proto->set_end_code(mm.end_code.raw());
  proto->set_start_data(mm.start_data.raw());
  proto->set_end_data(mm.end_data.raw());
  proto->set_start_brk(mm.start_brk.raw());
  proto->set_brk(mm.brk.raw());
  proto->set_start_stack(mm.start_stack.raw());
  proto->set_arg_start(mm.arg_start.raw());
  proto->set_arg_end(mm.arg_end.raw());
  proto->set_env_start(mm.env_start.raw());
  proto->set_env_end(mm.env_end.raw());
  for (const auto& [type, value] : mm.saved_auxv) {
    v1::AuxiliaryValue* entry = proto->add_saved_auxv();
    entry->set_type(type);
    entry->set_type_name(std::string(AuxiliaryTypeName(type)));
    entry->set_value(value);
  }
  proto->set_flags(MmFlags(mm));
  if (mm.exe_file != nullptr) proto->set_exe_file(mm.exe_file->inode->path);
  proto->set_context_id(mm.context_id);
}

void VmAreaStructToProto(const Machine& machine, const VmArea& vma, v1::VmAreaStruct* proto) {
  const Layout& layout = machine.layout();
  proto->set_vm_start(vma.start.raw());
  proto->set_vm_end(vma.end.raw());
  const uint64_t protection = machine.processes().PageProtection(vma);
  proto->set_vm_page_prot(protection);
  proto->set_vm_page_prot_text(DescribeEntry(layout, protection, 1).Text());
  proto->set_vm_flags(vma.flags);
  for (const absl::string_view name : VmFlagNames(vma.flags)) proto->add_vm_flag_names(std::string(name));
  proto->set_vm_pgoff(Signed(vma.pgoff.raw()));
  if (vma.file != nullptr) {
    proto->set_vm_file(vma.file->inode->path);
    proto->set_inode(vma.file->inode->number);
  }
  if (vma.anon_vma != nullptr) proto->set_anon_vma(vma.anon_vma->id);
  for (const AnonVma* anon_vma : vma.anon_vma_chain) proto->add_anon_vma_chain(anon_vma->id);
  proto->set_vm_ops(std::string(VmOpsName(vma)));
  if (vma.name.get() != nullptr) proto->set_anon_name(*vma.name.get());
  if (vma.is(kVmGrowsDown)) proto->set_guard_gap_bytes(Signed(kStackGuardGapPages << layout.page_size.shift()));
}

void RbStoreToProto(absl::Span<const StoredVma> vmas, absl::Span<const RbStoreNode> nodes, size_t first, size_t count,
                    v1::ListVmaStoreNodesResponse* proto) {
  for (size_t i = first; i < nodes.size() && i < first + count; ++i) {
    const RbStoreNode& node = nodes[i];
    v1::RbTreeNode* rb = AddNode(i, node.parent, node.depth, proto)->mutable_rb();
    rb->set_vm_start(vmas[node.vma].start);
    rb->set_vm_end(vmas[node.vma].end);
    rb->set_red(node.red);
    rb->set_left(node.left);
    rb->set_right(node.right);
    rb->set_list_position(Signed(node.vma));
    rb->set_gap_bytes(node.gap);
    rb->set_rb_subtree_gap_bytes(node.subtree_gap);
  }
  proto->set_node_count(Signed(nodes.size()));
  proto->set_depth(nodes.empty() ? 0 : nodes.back().depth + 1);
  proto->set_vma_count(Signed(vmas.size()));
}

void MapleStoreToProto(absl::Span<const StoredVma> vmas, absl::Span<const MapleStoreNode> nodes, const MapleSizes& sizes, size_t first,
                       size_t count, v1::ListVmaStoreNodesResponse* proto) {
  for (size_t i = first; i < nodes.size() && i < first + count; ++i) {
    const MapleStoreNode& node = nodes[i];
    v1::MapleTreeNode* maple = AddNode(i, node.parent, node.depth, proto)->mutable_maple();
    maple->set_type(node.leaf ? v1::MapleTreeNode::TYPE_LEAF_64 : v1::MapleTreeNode::TYPE_ARANGE_64);
    maple->set_min(node.slots.front().first);
    maple->set_max(node.slots.back().last);
    maple->set_slot_limit(static_cast<int32_t>(sizes.slots(node.leaf)));
    for (const MapleStoreSlot& slot : node.slots) SlotToProto(slot, maple->add_slots());
  }
  proto->set_node_count(Signed(nodes.size()));
  proto->set_depth(nodes.empty() ? 0 : nodes.back().depth + 1);
  proto->set_vma_count(Signed(vmas.size()));
  proto->set_node_bytes(Signed(nodes.size() * kMapleNodeBytes));
}

void TranslationToProto(const Machine& machine, const VirtualTranslation& translation, v1::TranslateVirtualAddressResponse* proto) {
  const Layout& layout = machine.layout();
  const PageTableFormat format(layout);
  proto->set_region(translation.region);
  proto->set_base_register(translation.base_register);
  proto->set_base_value(translation.base.raw());
  proto->set_asid(translation.asid);
  for (int i = 0; i < translation.walk.count; ++i) {
    StepToProto(layout, format, translation.walk.steps[static_cast<size_t>(i)], proto->add_steps());
  }
  proto->set_mapped(translation.physical.has_value());
  proto->set_page_bytes(translation.page_bytes.raw());
  proto->set_note(translation.note);
  if (translation.physical.has_value()) {
    proto->set_physical_address(translation.physical->raw());
    const Pfn pfn = layout.page_size.FrameHolding(*translation.physical);
    const BuddyMemory& memory = machine.memory();
    if (pfn < memory.end_pfn()) proto->set_frame_state(FrameStateName(memory.PeekFrame(memory.HeadOf(pfn)).state));
  }
  if (translation.fault.has_value()) {
    const TranslationFault& fault = *translation.fault;
    v1::TranslationFault* out = proto->mutable_fault();
    out->set_kind(TranslationFaultName(fault.kind));
    if (fault.level != 0) out->set_level(std::string(LevelName(format, fault.level)));
    out->set_x86_error_code(fault.x86_error_code);
    out->set_esr(fault.esr);
    out->set_reason(fault.reason);
  }
}

}  // namespace mmlab
