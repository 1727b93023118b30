#include "server/machine/machine.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/explanation.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/kernel/kernel_objects.h"
#include "server/kernel/slab_allocator.h"
#include "server/machine/boot.h"
#include "server/machine/hugetlb_boot.h"
#include "server/machine/kernel_addresses.h"
#include "server/machine/kernel_log.h"
#include "server/machine/memory_limits.h"
#include "server/machine/memory_map.h"
#include "server/machine/movable_pages.h"
#include "server/machine/object_source.h"
#include "server/machine/sysctls.h"
#include "server/physical/compaction.h"
#include "server/physical/page_allocator.h"
#include "server/process/huge_settings.h"
#include "server/process/processes.h"
#include "server/reclaim/oom_killer.h"
#include "server/reclaim/reclaim.h"

namespace mmlab {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kCentisecond = kSecond / 100;

}  // namespace

// On x86-32 processes have what is below PAGE_OFFSET; on ARM64 as many bits as the kernel was built for.
static Layout LayoutOf(const MachineSpec& spec) {
  Layout layout = GetLayout(spec.layout);
  if (layout.is_x86()) {
    layout.task_size = layout.stack_top = PageOffsetOf(spec.vmsplit);
  } else if (spec.va_bits == 39) {
    layout.task_size = layout.stack_top = VirtAddr(uint64_t{1} << 39);
    layout.table_levels = 3;
  }
  return layout;
}

// hugepage_init(): on machines with less than 512 MiB all flags of transparent huge pages start cleared. `enabled` is what the description
// says.
static void SetUpHugePages(const MachineSpec& spec, PageCount ram, const Layout& layout, HugePageSettings& settings) {
  using Thp = MachineSpec::TransparentHugepage;
  settings.enabled = spec.transparent_hugepage == Thp::kAlways    ? ThpEnabled::kAlways
                     : spec.transparent_hugepage == Thp::kMadvise ? ThpEnabled::kMadvise
                                                                  : ThpEnabled::kNever;
  if (layout.page_size.BytesOf(ram) >= Bytes(uint64_t{512} << 20)) return;
  settings.defrag = ThpDefrag::kNever;
  settings.use_zero_page = false;
  settings.khugepaged.defrag = false;
}

Machine::Machine(MachineSpec spec)
    : spec_(std::move(spec)),
      layout_(std::make_unique<const Layout>(LayoutOf(spec_))),
      tracer_(std::make_unique<Tracer>()),
      sysctls_(std::make_unique<Sysctls>(*layout_)),
      now_nanoseconds_(spec_.boot_time_seconds * kSecond),
      next_writeback_(now_nanoseconds_ + 5 * kSecond),
      next_stat_update_(now_nanoseconds_ + kSecond),
      next_slab_reap_(now_nanoseconds_ + SlabAllocator::kReapNanoseconds) {}

Machine::~Machine() {
  // Top down: processes let go of files, files of frames. A machine that did not boot has none of them.
  if (memory_ != nullptr) {
    memory_->SetMemoryPressure(nullptr);
    memory_->SetCompaction(nullptr);
  }
  if (cgroups_ != nullptr) cgroups_->SetPressure(nullptr);
  processes_.reset();
  files_.reset();
}

absl::StatusOr<std::unique_ptr<Machine>> Machine::Boot(MachineSpec spec) {
  MMLAB_RETURN_IF_ERROR(CompleteSpec(spec));
  MMLAB_ASSIGN_OR_RETURN(const PhysicalConfig config, PlanPhysicalMemory(spec));
  MMLAB_ASSIGN_OR_RETURN(const KernelLayout kernel, PlanKernelLayout(spec));
  std::unique_ptr<Machine> machine(new Machine(std::move(spec)));
  Machine& m = *machine;
  m.kernel_layout_ = kernel;
  m.memory_ = std::make_unique<BuddyMemory>(config, *m.tracer_);
  m.memory_->lru().SetMachine(&m.now_nanoseconds_, uint64_t{8} * static_cast<uint64_t>(m.layout_->word_bytes));
  m.cgroups_ = std::make_unique<Cgroups>(*m.memory_, m.layout_->word_bytes, m.now_nanoseconds_, *m.tracer_);
  m.memory_->SetController(m.cgroups_.get());
  m.files_ = std::make_unique<Files>(*m.memory_, m.memory_->vm_stat(), *m.tracer_);
  m.limits_ = std::make_unique<MemoryLimits>(*m.memory_, *m.sysctls_, m.layout_->is_x86());
  m.files_->SetWriteback(m.limits_.get(), &m.now_nanoseconds_);
  m.processes_ = std::make_unique<Processes>(*m.layout_, *m.memory_, *m.files_, m.memory_->vm_stat(), *m.tracer_,
                                             !m.spec_.no_hardware_access_flag, m.spec_.seed);
  SetUpHugePages(m.spec_, m.memory_->managed_pages(), *m.layout_, m.processes_->huge_settings());
  m.object_source_ = std::make_unique<ObjectSource>(m);
  m.kernel_objects_ = std::make_unique<KernelObjects>(*m.object_source_);
  m.processes_->SetKernelObjects(m.kernel_objects_.get());
  m.files_->SetKernelObjects(m.kernel_objects_.get());
  m.log_ = std::make_unique<KernelLog>(m.now_nanoseconds_, m.now_nanoseconds_);
  m.processes_->SetKernelLog(m.log_.get());
  m.oom_ = std::make_unique<OomKiller>(*m.memory_, *m.cgroups_, *m.processes_, m.memory_->vm_stat(), *m.log_, *m.tracer_);
  m.reclaim_ =
      std::make_unique<Reclaim>(*m.memory_, *m.cgroups_, *m.files_, m.processes_->reverse_map(), *m.processes_, *m.oom_, *m.tracer_);
  m.reclaim_->SetClock(&m.now_nanoseconds_);
  for (Shrinker* shrinker : m.processes_->shrinkers()) m.reclaim_->AddShrinker(*shrinker);
  m.memory_->SetMemoryPressure(m.reclaim_.get());
  m.cgroups_->SetPressure(m.reclaim_.get());
  m.processes_->SetReclaimer(m.reclaim_.get());
  m.movable_pages_ = std::make_unique<MovablePages>(*m.memory_);
  m.compaction_ = std::make_unique<Compaction>(*m.memory_, m.processes_->page_owner(), *m.movable_pages_, *m.tracer_, m.now_nanoseconds_);
  m.memory_->SetCompaction(m.compaction_.get());
  m.compaction_->SetReclaimer(m.reclaim_.get());
  m.SetUpHugetlb();
  m.SetComputedSysctls();
  m.processes_->limits().processes_of_user = m.sysctls_->value(Sysctl::kKernelThreadsMax) / 2;
  m.UpdateProcessLimits();
  m.UpdateOomSettings();
  MMLAB_RETURN_IF_ERROR(m.ApplySpecSysctls());
  m.processes_->AdvanceBackground(m.now_nanoseconds_);  // Their clocks start here.
  return machine;
}

const VmStat& Machine::vm_stat() const { return memory_->vm_stat(); }

DirtyLimits Machine::dirty_limits() const { return limits_->Limits(); }

// The caches of a booted kernel. Of what its start-up took of them only the numbers are known, and only where the description has them.
std::unique_ptr<SlabAllocator> Machine::FreshSlab() const {
  const uint64_t linear_base = kernel_layout_.page_offset.raw() - kernel_layout_.memstart_addr.raw();
  SlabPlatform platform = SlabPlatformOf(*layout_, spec_.cpus, spec_.slab_allocator);
  platform.options = ParseSlabBootOptions(spec_.command_line);
  std::unique_ptr<SlabAllocator> slab = SlabAllocator::Make(platform, linear_base, *memory_, *tracer_, spec_.seed);
  slab->AddBootCaches(layout_->kind);
  if (memory_->boot_slab_pages() != 0) slab->AddBootSlabs(spec_.recorded_slabs);
  return slab;
}

SlabAllocator& Machine::MakeSlab() {
  if (slab_ == nullptr) slab_ = FreshSlab();
  return *slab_;
}

void Machine::ReadSlab(absl::FunctionRef<void(const SlabAllocator&)> read) const {
  if (slab_ != nullptr) return read(*slab_);
  read(*FreshSlab());
}

void Machine::SettleKernelObjects() {
  KernelObjects& objects = *kernel_objects_;
  // A stack that the first pass takes or gives back may be an area, which is objects itself.
  for (int pass = 0; pass < 2; ++pass) {
    if (slab_ != nullptr) {
      objects.SetCount(KernelObject::kKmemCache, slab_->made_caches());
      objects.SetCount(KernelObject::kKmemCacheNode, slab_->made_caches());
    }
    if (kernel_addresses_ != nullptr) {
      objects.SetCount(KernelObject::kVmapArea, kernel_addresses_->ranges_made());
      objects.SetCount(KernelObject::kVmStruct, kernel_addresses_->areas_made());
    }
    if (!objects.pending()) return;
    objects.Settle();
  }
}

// After a time without use there is nothing left to reap, however much later `until` is.
void Machine::ReapSlabs(int64_t until) {
  constexpr int64_t kInterval = SlabAllocator::kReapNanoseconds;
  if (until < next_slab_reap_) return;
  int64_t due = (until - next_slab_reap_) / kInterval + 1;
  if (__builtin_add_overflow(next_slab_reap_, due * kInterval, &next_slab_reap_)) next_slab_reap_ = std::numeric_limits<int64_t>::max();
  while (slab_ != nullptr && due-- > 0 && slab_->Reap()) {
  }
}

// What the kernel computes from the memory that it finds. What depends on how much its own start-up took is recorded in presets.
void Machine::SetComputedSysctls() {
  const int shift = layout_->page_size.shift();
  const uint64_t free_kbytes = memory_->free_pages().raw() << (shift - 10);
  sysctls_->Set(Sysctl::kVmMinFreeKbytes, memory_->min_free_kbytes());
  // init_user_reserve(), init_admin_reserve(): 3 % of free memory, at most 128 MiB and 8 MiB.
  sysctls_->Set(Sysctl::kVmUserReserveKbytes, std::min<uint64_t>(free_kbytes / 32, 131072));
  sysctls_->Set(Sysctl::kVmAdminReserveKbytes, std::min<uint64_t>(free_kbytes / 32, 8192));
  // set_max_threads(): thread stacks may take an eighth of memory. THREAD_SIZE is 8 KiB, on ARM64 16 KiB.
  const uint64_t stack = layout_->is_x86() ? 8192 : 16384;
  // Computed before init sections and initramfs are freed, and CMA areas and gigantic pages come to the page allocator.
  uint64_t pages = memory_->managed_pages().raw();
  for (const BootReservation& r : spec_.reserved_ranges) {
    if (r.freed_late || r.purpose == kBootHugePage) pages -= std::min(pages, r.range.length().raw() >> shift);
  }
  for (const Zone& zone : memory_->zones()) pages -= std::min<uint64_t>(pages, zone.cma_pages);
  const uint64_t threads = (pages << shift) / (stack * 8);
  sysctls_->Set(Sysctl::kKernelThreadsMax, std::clamp<uint64_t>(threads, 20, 0x3fffffff));
  for (const auto& [name, value] : spec_.recorded_sysctls) sysctls_->Write(name, value);
}

absl::Status Machine::ApplySpecSysctls() {
  for (const auto& [name, value] : spec_.sysctls) {
    const SysctlWrite written = sysctls_->Write(name, value);
    const std::string field = absl::StrCat("spec.sysctls[\"", name, "\"]: ");
    if (written.error == Errno::kENOENT) return absl::InvalidArgumentError(absl::StrCat(field, "this layout's kernel has no such sysctl"));
    if (written.error != Errno::kOk) {
      return absl::InvalidArgumentError(absl::StrCat(field, "\"", value, "\" is not a value that the kernel takes"));
    }
    if (written.changed) Follow(*written.changed);
  }
  return absl::OkStatus();
}

void Machine::Follow(Sysctl id) {
  const auto value = [&](Sysctl of) { return static_cast<uint32_t>(sysctls_->value(of)); };
  switch (id) {
    case Sysctl::kVmMinFreeKbytes:
      memory_->SetMinFreeKbytes(value(id));
      break;
    case Sysctl::kVmWatermarkScaleFactor:
      memory_->SetWatermarkScaleFactor(value(id));
      break;
    case Sysctl::kVmPercpuPagelistHighFraction:
      memory_->SetPercpuPagelistHighFraction(value(id));
      break;
    case Sysctl::kVmWatermarkBoostFactor:
      memory_->SetWatermarkBoostFactor(value(id));
      break;
    case Sysctl::kVmLowmemReserveRatio: {
      const std::array<uint32_t, 4>& by_zone = sysctls_->lowmem_reserve_ratio();
      std::array<uint32_t, 5> by_type{};
      for (const Zone& zone : memory_->zones()) by_type[static_cast<size_t>(zone.type)] = by_zone[static_cast<size_t>(zone.index)];
      memory_->SetLowmemReserveRatio(by_type);
      break;
    }
    case Sysctl::kVmStatRefresh:
      memory_->FoldCpuCounters();
      break;
    case Sysctl::kVmStatInterval:
      // The next round is planned anew from now on; 0 stands for the shortest interval.
      next_stat_update_ = now_nanoseconds_ + std::max<int64_t>(1, static_cast<int64_t>(sysctls_->value(id))) * kSecond;
      break;
    case Sysctl::kVmDirtyWritebackCentisecs:
      PlanFlusher();
      break;
    case Sysctl::kVmSwappiness:
      reclaim_->SetSwappiness(value(id));
      break;
    case Sysctl::kVmPageCluster:
      files_->SetPageCluster(static_cast<int>(value(id)));
      break;
    case Sysctl::kVmCompactMemory:
      compaction_->CompactAll();
      break;
    case Sysctl::kVmCompactUnevictableAllowed:
    case Sysctl::kVmCompactionProactiveness:
    case Sysctl::kVmExtfragThreshold:
      compaction_->SetSettings({value(Sysctl::kVmCompactUnevictableAllowed) != 0,
                                static_cast<int>(value(Sysctl::kVmCompactionProactiveness)),
                                static_cast<int>(value(Sysctl::kVmExtfragThreshold))});
      if (id == Sysctl::kVmCompactionProactiveness) compaction_->TriggerProactive(now_nanoseconds_);
      break;
    case Sysctl::kVmNrHugepages:
    case Sysctl::kVmNrHugepagesMempolicy:
      files_->hugetlb().SetMaximum(files_->hugetlb().default_pool(), sysctls_->value(id));
      ShowHugetlbSysctls();
      break;
    case Sysctl::kVmNrOvercommitHugepages:
      files_->hugetlb().SetOvercommit(files_->hugetlb().default_pool(), sysctls_->value(id));
      break;
    case Sysctl::kVmDropCaches:
      reclaim_->DropCaches(value(id));
      // Whoever writes sysctls is no task of the machine. After bit 2 nothing more is said.
      if (!drops_quietly_) log_->Log(LogLevel::kInfo, absl::StrCat("swapper/0 (0): drop_caches: ", value(id)));
      drops_quietly_ = drops_quietly_ || (value(id) & 4) != 0;
      break;
    case Sysctl::kVmOvercommitMemory:
      UpdateProcessLimits();
      if (value(id) == 2) processes_->SyncCommitted();
      break;
    default:
      UpdateProcessLimits();
      UpdateOomSettings();
      break;
  }
}

void Machine::UpdateProcessLimits() {
  const auto number = [&](Sysctl id) { return static_cast<int64_t>(sysctls_->value(id)); };
  ProcessLimits& limits = processes_->limits();
  limits.overcommit_memory = static_cast<int>(number(Sysctl::kVmOvercommitMemory));
  limits.overcommit_ratio = number(Sysctl::kVmOvercommitRatio);
  limits.overcommit_kbytes = number(Sysctl::kVmOvercommitKbytes);
  limits.admin_reserve_kbytes = number(Sysctl::kVmAdminReserveKbytes);
  limits.user_reserve_kbytes = number(Sysctl::kVmUserReserveKbytes);
  limits.max_map_count = number(Sysctl::kVmMaxMapCount);
  limits.mmap_min_addr = sysctls_->value(Sysctl::kVmMmapMinAddr);
  limits.legacy_va_layout = number(Sysctl::kVmLegacyVaLayout) != 0;
  limits.randomize_va_space = static_cast<int>(number(Sysctl::kKernelRandomizeVaSpace));
  limits.total_ram = memory_->managed_pages();
  limits.total_swap = PageCount(files_->swap().total_pages());
  limits.shmmax = sysctls_->value(Sysctl::kKernelShmmax);
  limits.shmall = sysctls_->value(Sysctl::kKernelShmall);
  limits.shmmni = static_cast<int>(number(Sysctl::kKernelShmmni));
  limits.hugetlb_shm_group = number(Sysctl::kVmHugetlbShmGroup);
}

// vm.nr_hugepages shows what the pool of the default size keeps, which may be less than what was written.
void Machine::ShowHugetlbSysctls() {
  const HugetlbPool& pool = files_->hugetlb().pool(files_->hugetlb().default_pool());
  sysctls_->Set(Sysctl::kVmNrHugepages, pool.maximum);
  sysctls_->Set(Sysctl::kVmNrHugepagesMempolicy, pool.maximum);
  sysctls_->Set(Sysctl::kVmNrOvercommitHugepages, pool.overcommit);
}

// hugetlb_init(): gigantic pages were taken before the page allocator started, the others come from it now.
void Machine::SetUpHugetlb() {
  HugetlbPools& hugetlb = files_->hugetlb();
  const HugetlbPlan plan = PlanHugetlb(spec_.command_line, *layout_);
  hugetlb.SetDefault(plan.default_pool);
  for (size_t pool = 0; pool < plan.counts.size(); ++pool) {
    if (!hugetlb.pool(pool).gigantic()) {
      hugetlb.SetMaximum(pool, plan.counts[pool]);
      continue;
    }
    const int order = hugetlb.pool(pool).order;
    for (const BootReservation& kept : spec_.reserved_ranges) {
      const uint64_t bytes = kept.range.length().raw();
      if (kept.purpose != kBootHugePage || bytes != layout_->page_size.BytesOf(PageCount(hugetlb.pool(pool).pages())).raw()) continue;
      const Pfn head = layout_->page_size.FrameHolding(kept.range.start);
      memory_->AdoptReserved(head, PageOrder(order), FrameState::kHugetlb);
      hugetlb.AddBootPage(pool, head);
    }
  }
  files_->SetTmpfsLimit(PageCount(memory_->managed_pages().raw() / 2));
  ShowHugetlbSysctls();
}

void Machine::UpdateOomSettings() {
  OomSettings& settings = oom_->settings();
  settings.kill_allocating_task = sysctls_->value(Sysctl::kVmOomKillAllocatingTask) != 0;
  settings.dump_tasks = sysctls_->value(Sysctl::kVmOomDumpTasks) != 0;
  settings.panic_on_oom = static_cast<int>(sysctls_->value(Sysctl::kVmPanicOnOom));
  settings.kernel_release = spec_.kernel_release;
  // "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)": its number and the distributor's version.
  const std::vector<std::string> words = absl::StrSplit(spec_.kernel_version, ' ', absl::SkipEmpty());
  settings.kernel_version =
      words.size() < 4 ? spec_.kernel_version : absl::StrCat(words[0], "  ", words[words.size() - 3], " ", words[words.size() - 2]);
}

void Machine::ForgetEndedProcesses() {
  absl::erase_if(cpu_of_, [&](const auto& entry) { return processes_->Find(entry.first) == nullptr; });
}

// dirty_writeback_centisecs_handler(): the next look is planned anew from now on.
void Machine::PlanFlusher() {
  const auto interval = static_cast<int64_t>(sysctls_->value(Sysctl::kVmDirtyWritebackCentisecs));
  if (interval <= 0 || __builtin_add_overflow(now_nanoseconds_, interval * kCentisecond, &next_writeback_)) {
    next_writeback_ = std::numeric_limits<int64_t>::max();
  }
}

// What the flusher did at its looks until now: the last of them found all that was old enough by then.
void Machine::RunFlusher() {
  if (now_nanoseconds_ < next_writeback_) return;
  const int64_t interval = std::max<int64_t>(1, static_cast<int64_t>(sysctls_->value(Sysctl::kVmDirtyWritebackCentisecs))) * kCentisecond;
  const int64_t last = next_writeback_ + (now_nanoseconds_ - next_writeback_) / interval * interval;
  const int64_t expire = static_cast<int64_t>(sysctls_->value(Sysctl::kVmDirtyExpireCentisecs)) * kCentisecond;
  files_->FlushOlderThan(last - expire, last);
  if (__builtin_add_overflow(last, interval, &next_writeback_)) next_writeback_ = std::numeric_limits<int64_t>::max();
}

void Machine::AdvanceClock(int64_t nanoseconds) {
  now_nanoseconds_ += nanoseconds;
  processes_->PassTime(nanoseconds);
  cgroups_->AdvanceTime();
  RunFlusher();
  files_->AdvanceTo(now_nanoseconds_);
  ReapSlabs(now_nanoseconds_);
  reclaim_->AdvanceTime();
  compaction_->AdvanceTo(now_nanoseconds_);
  processes_->AdvanceBackground(now_nanoseconds_);
  if (now_nanoseconds_ < next_stat_update_) return;
  memory_->FoldCpuCounters();  // vmstat_update(); running it more than once in a row changes nothing.
  const int64_t interval = std::max<int64_t>(1, static_cast<int64_t>(sysctls_->value(Sysctl::kVmStatInterval))) * kSecond;
  const int64_t passed = (now_nanoseconds_ - next_stat_update_) / interval;
  // The clock stops in the year 2262; so far ahead nothing is planned any more.
  if (__builtin_add_overflow(next_stat_update_, (passed + 1) * interval, &next_stat_update_)) {
    next_stat_update_ = std::numeric_limits<int64_t>::max();
  }
}

std::vector<std::string> Machine::CheckInvariants() const {
  std::vector<std::string> violations;
  memory_->CheckInvariants(&violations);
  cgroups_->CheckInvariants(&violations);
  files_->CheckInvariants(&violations);
  processes_->CheckInvariants(&violations);
  if (slab_ != nullptr) slab_->CheckInvariants(&violations);
  kernel_objects_->CheckInvariants(slab_.get(), &violations);
  object_source_->CheckInvariants(&violations);
  movable_pages_->CheckInvariants(&violations);
  compaction_->CheckInvariants(&violations);
  if (kernel_addresses_ != nullptr) {
    kernel_addresses_->vmalloc.CheckInvariants(&violations);
    kernel_addresses_->kmap.CheckInvariants(&violations);
    if (kernel_addresses_->percpu != nullptr) kernel_addresses_->percpu->CheckInvariants(&violations);
  }
  return violations;
}

uint64_t Machine::StateHash() const {
  StateHasher hasher;
  memory_->StateHash(hasher);
  cgroups_->AddToHash(hasher);
  files_->AddToHash(hasher);
  processes_->AddToHash(hasher);
  reclaim_->AddToHash(hasher);
  movable_pages_->AddToHash(hasher);
  compaction_->AddToHash(hasher);
  sysctls_->AddToHash(hasher);
  if (slab_ != nullptr) slab_->AddToHash(hasher);
  kernel_objects_->AddToHash(hasher);
  object_source_->AddToHash(hasher);
  if (kernel_addresses_ != nullptr) {
    kernel_addresses_->vmalloc.AddToHash(hasher);
    kernel_addresses_->kmap.AddToHash(hasher);
    if (kernel_addresses_->percpu != nullptr) kernel_addresses_->percpu->AddToHash(hasher);
  }
  log_->AddToHash(hasher);
  oom_->AddToHash(hasher);
  for (const auto& [pid, cpu] : cpu_of_) {
    hasher.Add(static_cast<uint64_t>(pid.raw()));
    hasher.Add(static_cast<uint64_t>(cpu));
  }
  hasher.Add(drops_quietly_ ? 1 : 0);
  hasher.Add(static_cast<uint64_t>(now_nanoseconds_));
  hasher.Add(static_cast<uint64_t>(next_stat_update_));
  hasher.Add(static_cast<uint64_t>(next_writeback_));
  hasher.Add(static_cast<uint64_t>(next_slab_reap_));
  return hasher.value();
}

Bytes Machine::HostMemory() const {
  uint64_t spec_bytes = spec_.command_line.capacity() + spec_.kernel_version.capacity() + spec_.kernel_compiler.capacity() +
                        spec_.firmware_ranges.capacity() * sizeof(FirmwareRange) +
                        spec_.reserved_ranges.capacity() * sizeof(BootReservation) + spec_.kernel_sections.capacity() * sizeof(NamedRange) +
                        spec_.iomem_resources.capacity() * sizeof(IomemResource) + spec_.recorded_areas.capacity() * sizeof(KernelArea) +
                        spec_.recorded_slabs.capacity() * sizeof(SlabinfoCounts) +
                        spec_.recorded_lazy_areas.capacity() * sizeof(FreeAreaTree::Area);
  return Bytes(sizeof(Machine) + sizeof(Sysctls) + sizeof(Tracer) + spec_bytes + memory_->HostMemory() + cgroups_->HostMemory() +
               (slab_ != nullptr ? slab_->HostMemory() : 0) + kernel_objects_->HostMemory() + sizeof(ObjectSource) +
               (kernel_addresses_ != nullptr ? kernel_addresses_->vmalloc.HostMemory() + kernel_addresses_->kmap.HostMemory() +
                                                   kernel_addresses_->tables.HostMemory() +
                                                   (kernel_addresses_->percpu != nullptr ? kernel_addresses_->percpu->HostMemory() : 0)
                                             : 0)) +
         files_->HostMemory() + processes_->HostMemory() + log_->HostMemory() +
         Bytes(sizeof(OomKiller) + movable_pages_->HostMemory() + compaction_->HostMemory());
}

}  // namespace mmlab
