#include "server/service/view_converters.h"

#include <algorithm>
#include <string>

#include "google/protobuf/timestamp.pb.h"
#include "server/files/files.h"
#include "server/host/names.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"
#include "server/procfs/page_frames.h"

namespace mmlab {
namespace {

int64_t Signed(uint64_t value) { return static_cast<int64_t>(value); }
int64_t Signed(Bytes bytes) { return static_cast<int64_t>(bytes.raw()); }

std::string Text(absl::string_view text) { return std::string(text); }

void SpecToProto(const MachineView& view, MachineDetail detail, v1::MachineSpec* proto) {
  if (detail != MachineDetail::kShort) {
    *proto = view.spec;
    return;
  }
  proto->set_preset(view.spec.preset());
  proto->set_layout(view.spec.layout());
  proto->set_ram_bytes(view.spec.ram_bytes());
  proto->set_cpus(view.spec.cpus());
  *proto->mutable_kernel() = view.spec.kernel();
  proto->set_seed(view.spec.seed());
}

void ZoneToProto(const Zone& zone, v1::Zone* proto) {
  proto->set_name(Text(zone.name()));
  proto->set_start_pfn(zone.start_pfn);
  proto->set_spanned_pages(zone.spanned);
  proto->set_present_pages(zone.present);
  proto->set_managed_pages(zone.managed);
  proto->set_free_pages(Signed(zone.free_pages()));
  proto->set_min_pages(Signed(zone.wmark_min + zone.watermark_boost));
  proto->set_low_pages(Signed(zone.wmark_low + zone.watermark_boost));
  proto->set_high_pages(Signed(zone.wmark_high + zone.watermark_boost));
  for (const FreeArea& area : zone.free_area) proto->add_free_blocks(area.nr_free);
}

void StatusToProto(const MemoryStatus& status, v1::MemoryStatus* proto) {
  proto->set_vm_peak_bytes(Signed(status.vm_peak));
  proto->set_vm_size_bytes(Signed(status.vm_size));
  proto->set_vm_lck_bytes(Signed(status.vm_lck));
  proto->set_vm_pin_bytes(Signed(status.vm_pin));
  proto->set_vm_hwm_bytes(Signed(status.vm_hwm));
  proto->set_vm_rss_bytes(Signed(status.vm_rss));
  proto->set_rss_anon_bytes(Signed(status.rss_anon));
  proto->set_rss_file_bytes(Signed(status.rss_file));
  proto->set_rss_shmem_bytes(Signed(status.rss_shmem));
  proto->set_vm_data_bytes(Signed(status.vm_data));
  proto->set_vm_stk_bytes(Signed(status.vm_stk));
  proto->set_vm_exe_bytes(Signed(status.vm_exe));
  proto->set_vm_lib_bytes(Signed(status.vm_lib));
  proto->set_vm_pte_bytes(Signed(status.vm_pte));
  proto->set_vm_swap_bytes(Signed(status.vm_swap));
  proto->set_hugetlb_pages_bytes(Signed(status.hugetlb));
}

void SmapsToProto(const Smaps& smaps, v1::Smaps* proto) {
  proto->set_rss_bytes(Signed(smaps.rss));
  proto->set_pss_bytes(Signed(smaps.pss));
  proto->set_pss_dirty_bytes(Signed(smaps.pss_dirty));
  proto->set_shared_clean_bytes(Signed(smaps.shared_clean));
  proto->set_shared_dirty_bytes(Signed(smaps.shared_dirty));
  proto->set_private_clean_bytes(Signed(smaps.private_clean));
  proto->set_private_dirty_bytes(Signed(smaps.private_dirty));
  proto->set_referenced_bytes(Signed(smaps.referenced));
  proto->set_anonymous_bytes(Signed(smaps.anonymous));
  proto->set_lazy_free_bytes(Signed(smaps.lazy_free));
  proto->set_anon_huge_pages_bytes(Signed(smaps.anon_huge_pages));
  proto->set_shmem_pmd_mapped_bytes(Signed(smaps.shmem_pmd_mapped));
  proto->set_file_pmd_mapped_bytes(Signed(smaps.file_pmd_mapped));
  proto->set_shared_hugetlb_bytes(Signed(smaps.shared_hugetlb));
  proto->set_private_hugetlb_bytes(Signed(smaps.private_hugetlb));
  proto->set_swap_bytes(Signed(smaps.swap));
  proto->set_swap_pss_bytes(Signed(smaps.swap_pss));
  proto->set_locked_bytes(Signed(smaps.locked));
}

constexpr struct {
  FrameFlag flag;
  const char* name;
} kFlagNames[] = {
    {kPgReferenced, "referenced"},
    {kPgUptodate, "uptodate"},
    {kPgDirty, "dirty"},
    {kPgLru, "lru"},
    {kPgActive, "active"},
    {kPgUnevictable, "unevictable"},
    {kPgMlocked, "mlocked"},
    {kPgSwapBacked, "swapbacked"},
    {kPgSwapCache, "swapcache"},
    {kPgWriteback, "writeback"},
    {kPgWorkingset, "workingset"},
    {kPgAnonExclusive, "anon_exclusive"},
    {kPgReclaim, "reclaim"},
    {kPgHead, "head"},
    {kPgTail, "tail"},
    {kPgPrivate, "private"},
    {kPgMovable, "movable"},
    {kPgHugetlbAnon, "hugetlb_anon"},
};

}  // namespace

const char* FrameStateName(FrameState state) {
  switch (state) {
    case FrameState::kReserved:
      return "reserved";
    case FrameState::kFree:
      return "free";
    case FrameState::kPcp:
      return "pcp";
    case FrameState::kKernel:
      return "kernel";
    case FrameState::kPageTable:
      return "page_table";
    case FrameState::kAnon:
      return "anon";
    case FrameState::kFile:
      return "file";
    case FrameState::kShmem:
      return "shmem";
    case FrameState::kSlab:
      return "slab";
    case FrameState::kKernelStack:
      return "kernel_stack";
    case FrameState::kVmalloc:
      return "vmalloc";
    case FrameState::kHugetlb:
      return "hugetlb";
  }
  return "";
}

void MachineToProto(const MachineView& view, MachineDetail detail, v1::Machine* proto) {
  const Machine& machine = view.machine;
  const BuddyMemory& memory = machine.memory();
  const int shift = machine.layout().page_size.shift();
  proto->set_name(MachineName(view.hosted.id()));
  SpecToProto(view, detail, proto->mutable_spec());
  proto->set_state(static_cast<v1::Machine::State>(view.hosted.state()));
  const int64_t created = absl::ToUnixNanos(view.hosted.create_time());
  proto->mutable_create_time()->set_seconds(created / 1'000'000'000);
  proto->mutable_create_time()->set_nanos(static_cast<int32_t>(created % 1'000'000'000));
  proto->set_operations_applied(Signed(machine.operations_applied()));
  proto->set_now_nanoseconds(machine.now_nanoseconds());
  proto->set_process_count(static_cast<int32_t>(machine.processes().all().size()));
  proto->set_memory_total_bytes(Signed(memory.managed_pages().raw() << shift));
  proto->set_memory_free_bytes(Signed(memory.free_pages().raw() << shift));
  proto->set_host_memory_bytes(Signed(machine.HostMemory()));
  for (const Zone& zone : memory.zones()) {
    if (!zone.populated()) continue;
    v1::Zone* added = proto->add_zones();
    ZoneToProto(zone, added);
    for (size_t i = 0; i < memory.zones().size(); ++i) added->add_protection_pages(Signed(zone.lowmem_reserve[i]));
  }
  if (detail == MachineDetail::kFull) proto->set_state_hash(machine.StateHash());
  for (const auto& [key, value] : view.hosted.labels()) (*proto->mutable_labels())[key] = value;
}

void VmAreasToProto(const std::vector<VmAreaView>& areas, const std::vector<Smaps>* smaps, size_t first, size_t count,
                    google::protobuf::RepeatedPtrField<v1::VmArea>* proto) {
  const size_t end = std::min(areas.size(), first + count);
  for (size_t i = first; i < end; ++i) {
    const VmAreaView& area = areas[i];
    v1::VmArea* added = proto->Add();
    added->set_start_address(area.start.raw());
    added->set_end_address(area.end.raw());
    added->set_permissions(area.permissions);
    added->set_offset_bytes(Signed(area.offset));
    added->set_backing(area.backing);
    added->set_vm_flags(area.vm_flags);
    added->set_kernel_page_size_bytes(Signed(area.page_size));
    if (smaps != nullptr) SmapsToProto((*smaps)[i], added->mutable_smaps());
  }
}

void ProcessToProto(const MachineView& view, const Process& process, v1::ProcessView detail, v1::Process* proto) {
  const Processes& processes = view.machine.processes();
  proto->set_name(ProcessNameOf(view.hosted.id(), process.pid.raw()));
  proto->set_pid(process.pid.raw());
  proto->set_parent_pid(process.parent.raw());
  proto->set_comm(process.comm);
  proto->set_uid(process.uid);
  proto->set_kernel_thread(process.mm == nullptr);
  proto->set_minor_faults(Signed(process.minor_faults));
  proto->set_major_faults(Signed(process.major_faults));
  proto->set_oom_score(processes.OomScore(process));
  if (process.mm == nullptr) return;
  StatusToProto(processes.Status(process), proto->mutable_status());
  if (detail != v1::PROCESS_VIEW_VMAS && detail != v1::PROCESS_VIEW_FULL) return;
  const std::vector<VmAreaView> areas = processes.VmAreas(process);
  if (detail == v1::PROCESS_VIEW_VMAS) {
    VmAreasToProto(areas, nullptr, 0, areas.size(), proto->mutable_vm_areas());
    return;
  }
  const std::vector<Smaps> smaps = processes.AllSmaps(process);
  VmAreasToProto(areas, &smaps, 0, areas.size(), proto->mutable_vm_areas());
  const ResidentBytes resident = processes.Resident(process);
  proto->mutable_resident()->set_anon_bytes(Signed(resident.anon));
  proto->mutable_resident()->set_file_bytes(Signed(resident.file));
  proto->mutable_resident()->set_shmem_bytes(Signed(resident.shmem));
}

// struct page beyond its plain fields: what it is part of, what it belongs to, where it stands.
void PlaceToProto(const Machine& machine, Pfn pfn, const Frame& frame, v1::Frame* proto) {
  constexpr const char* kLruNames[] = {"inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"};
  constexpr int kSectionShift = 27;  // SECTION_SIZE_BITS of ARM64 with 4 KiB pages.
  const BuddyMemory& memory = machine.memory();
  const Pfn head = frame.state == FrameState::kReserved ? pfn : memory.HeadOf(pfn);
  proto->set_head_pfn(head.raw());
  if ((frame.flags & kPgHead) != 0) proto->set_compound("head");
  if ((frame.flags & kPgTail) != 0) proto->set_compound("tail");
  if (frame.state == FrameState::kFree && memory.PeekFrame(head).state == FrameState::kFree) {
    proto->set_page_type("buddy");
    if (head == pfn) proto->set_private_value(frame.order);
  }
  if (frame.state == FrameState::kPageTable && frame.index != 0) proto->set_page_type("table");
  if ((frame.flags & kPgLru) != 0) proto->set_lru(kLruNames[static_cast<size_t>(LruLists::KindOf(frame))]);
  if (frame.state == FrameState::kAnon) {
    proto->set_mapping("anon_vma");
    proto->set_mapping_id(frame.mapping);
  } else if (frame.state == FrameState::kFile || frame.state == FrameState::kShmem) {
    proto->set_mapping("page_cache");
    if (const Inode* inode = machine.files().FindById(static_cast<uint32_t>(frame.mapping))) proto->set_mapping_id(inode->number);
  } else if ((frame.flags & kPgMovable) != 0) {
    proto->set_mapping("movable_operations");
  }
  proto->set_memory_cgroup(frame.memcg);
  if (machine.layout().kind == LayoutKind::kArm64) proto->set_section(Signed(pfn.raw() >> (kSectionShift - memory.page_size().shift())));
}

void FrameToProto(const Machine& machine, uint64_t pfn, v1::Frame* proto) {
  const BuddyMemory& memory = machine.memory();
  const Frame frame = memory.PeekFrame(Pfn(pfn));
  proto->set_pfn(pfn);
  proto->set_state(FrameStateName(frame.state));
  proto->set_reference_count(frame.refcount);
  proto->set_map_count(frame.mapcount);
  if (frame.order != kTailOrder && (frame.flags & kPgTail) == 0) proto->set_order(frame.order);
  for (const auto& [flag, name] : kFlagNames) {
    if ((frame.flags & flag) != 0) proto->add_flags(name);
  }
  proto->set_index(frame.index);
  proto->set_kpageflags(KpageFlags(machine, Pfn(pfn)));
  proto->set_raw_flags(PageFlagsWord(machine, Pfn(pfn)));
  PlaceToProto(machine, Pfn(pfn), frame, proto);
  for (const Zone& zone : memory.zones()) {
    if (!zone.Spans(static_cast<uint32_t>(pfn))) continue;
    proto->set_zone(Text(zone.name()));
    proto->set_migrate_type(Text(MigrateTypeName(memory.PageblockTypeOf(Pfn(pfn)))));
  }
}

}  // namespace mmlab
