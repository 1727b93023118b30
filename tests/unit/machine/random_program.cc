#include "tests/unit/machine/random_program.h"

#include <iterator>
#include <string>

#include "server/process/process.h"
#include "server/process/processes.h"

namespace mmlab {

ElfImage SmallProgram(LayoutKind layout) {
  const bool arm64 = layout == LayoutKind::kArm64;
  const uint64_t text = arm64 ? 0x400000 : 0x8048000;
  const uint64_t data = text + (arm64 ? 0x20000 : 0x4000);
  const uint64_t align = arm64 ? 0x10000 : 0x1000;
  ElfImage image;
  image.path = "/bin/program";
  image.entry = text + 0x100;
  image.program_headers = {
      {ProgramHeader::Type::kLoad, 0, text, 0x3000, 0x3000, 5, align},
      {ProgramHeader::Type::kLoad, arm64 ? 0x10000u : 0x3000u, data, 0x1000, 0x9000, 6, align},
      {ProgramHeader::Type::kGnuStack, 0, 0, 0, 0, 6, 16},
  };
  return image;
}

RandomProgram::RandomProgram(uint64_t seed, const Machine& machine) : random_(seed), machine_(machine) {}

uint64_t RandomProgram::Edge() {
  static constexpr uint64_t kEdges[] = {0,
                                        1,
                                        2,
                                        4095,
                                        4096,
                                        4097,
                                        0x7fffffff,
                                        0x80000000,
                                        0xbfffffff,
                                        0xc0000000,
                                        0xfffff000,
                                        0xffffffff,
                                        uint64_t{1} << 32,
                                        uint64_t{1} << 47,
                                        (uint64_t{1} << 48) - 4096,
                                        uint64_t{1} << 48,
                                        uint64_t{1} << 52,
                                        uint64_t{1} << 63,
                                        ~uint64_t{0} - 4095,
                                        ~uint64_t{0} - 4096,
                                        ~uint64_t{0}};
  const uint64_t edge = kEdges[random_.Below(std::size(kEdges))];
  return OneIn(3) ? edge + random_.Below(5) - 2 : edge;
}

uint64_t RandomProgram::Address() {
  if (OneIn(12)) return Edge();
  const Process* process = machine_.processes().Find(current_);
  if (OneIn(8) || process == nullptr || process->mm == nullptr) return OneIn(2) ? 0 : 0x10000000 + random_.Below(1024) * 4096;
  const std::vector<VmAreaView> vmas = machine_.processes().VmAreas(*process);
  if (vmas.empty()) return 0;
  const VmAreaView& vma = vmas[random_.Below(vmas.size())];
  const uint64_t pages = (vma.end - vma.start).raw() / 4096;
  const uint64_t address = vma.start.raw() + random_.Below(pages + 2) * 4096 - (OneIn(8) ? 4096 : 0);
  return OneIn(10) ? address + random_.Below(4096) : address;
}

uint64_t RandomProgram::Length() {
  if (OneIn(20)) return Edge();
  const uint64_t pages = OneIn(6) ? random_.Below(2000) : random_.Below(24);
  return OneIn(4) ? pages * 4096 + random_.Below(4096) : pages * 4096;
}

int32_t RandomProgram::Order() { return OneIn(10) ? static_cast<int32_t>(random_.Below(40)) - 20 : static_cast<int32_t>(random_.Below(6)); }

int32_t RandomProgram::Cpu() {
  return OneIn(15) ? static_cast<int32_t>(Edge()) : static_cast<int32_t>(random_.Below(static_cast<uint64_t>(machine_.spec().cpus)));
}

Pid RandomProgram::AnyPid() {
  const auto& all = machine_.processes().all();
  if (all.empty() || OneIn(40)) return Pid(static_cast<int32_t>(Edge()));
  auto it = all.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(random_.Below(all.size())));
  if (it->second->mm == nullptr && !OneIn(4)) {  // Mostly one that can do something.
    for (auto other = all.begin(); other != all.end(); ++other) {
      if (other->second->mm != nullptr) it = other;
    }
  }
  current_ = it->first;
  return current_;
}

uint32_t RandomProgram::Prot() { return OneIn(25) ? static_cast<uint32_t>(Edge()) : static_cast<uint32_t>(random_.Below(8)); }

uint32_t RandomProgram::MmapFlags() {
  if (OneIn(25)) return static_cast<uint32_t>(Edge());
  uint32_t flags = OneIn(4) ? 1 : 2;  // MAP_SHARED, MAP_PRIVATE
  if (!OneIn(6)) flags |= 0x20;       // MAP_ANONYMOUS
  if (OneIn(4)) flags |= 0x10;        // MAP_FIXED
  if (OneIn(12)) flags |= 0x100;      // MAP_GROWSDOWN
  if (OneIn(8)) flags |= 0x8000;      // MAP_POPULATE
  if (OneIn(10)) flags |= 0x2000;     // MAP_LOCKED
  if (OneIn(10)) flags |= 0x4000;     // MAP_NORESERVE
  if (OneIn(20)) flags |= 0x100000;   // MAP_FIXED_NOREPLACE
  if (OneIn(8)) flags |= 0x40000;     // MAP_HUGETLB
  if (OneIn(16)) flags |= 16u << 26;  // MAP_HUGE_64KB
  return flags;
}

AccessRequest RandomProgram::Access() {
  AccessRequest access;
  access.kind = static_cast<AccessKind>(1 + random_.Below(8));
  access.address = Address();
  switch (access.kind) {
    case AccessKind::kLoad:
    case AccessKind::kStore:
      access.length = uint64_t{1} << random_.Below(4);
      access.value = Edge();
      break;
    case AccessKind::kTouchRead:
    case AccessKind::kTouchWrite:
      access.length = random_.Below(40) * 4096;
      access.stride = OneIn(4) ? 1024 : 0;
      access.value = random_.Below(256);
      break;
    case AccessKind::kWriteBytes:
      access.data = std::string(random_.Below(9000), static_cast<char>('a' + random_.Below(26)));
      access.length = access.data.size();
      break;
    default:
      access.length = random_.Below(20000);
      break;
  }
  return access;
}

Operation RandomProgram::ProcessOperation() {
  const Pid pid = AnyPid();
  const size_t living = machine_.processes().all().size();
  switch (random_.Below(6)) {
    case 0:
      if (living < 6 || (living < 12 && OneIn(3))) return op::CreateProcess{"p", OneIn(3) ? 0u : 1000u, OneIn(10)};
      return op::Exit{pid, 0};
    case 1:
      return op::Exec{pid, SmallProgram(machine_.layout().kind), std::nullopt, {"program", "argument"}, {"HOME=/"}};
    case 2:
      if (living > 10) return op::Exit{pid, 1};
      // fork, vfork, a thread, and whatever else a caller could pass.
      switch (random_.Below(5)) {
        case 0:
          return op::Fork{pid, 0x4100};
        case 1:
        case 2:
          return op::Fork{pid, 0x10d00};
        case 3:
          return op::Fork{pid, Edge()};
        default:
          return op::Fork{pid, 0};
      }
    case 3:
      if (living > 3) return op::Exit{pid, 0};
      return op::Fork{pid, 0};
    case 4:
      return op::SwitchTo{pid, Cpu()};
    default: {
      static constexpr uint32_t kResources[] = {2, 3, 8, 9};
      const uint32_t resource = OneIn(10) ? static_cast<uint32_t>(Edge()) : kResources[random_.Below(4)];
      const uint64_t limit = OneIn(4) ? random_.Below(256) << 18 : ~uint64_t{0};
      return op::Setrlimit{pid, resource, limit, OneIn(8) ? Edge() : ~uint64_t{0}};
    }
  }
}

Operation RandomProgram::MappingOperation(Pid pid) {
  switch (random_.Below(10)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return op::Mmap{pid,
                      Address(),
                      Length(),
                      Prot(),
                      MmapFlags(),
                      static_cast<int32_t>(random_.Below(6)) - 1,
                      OneIn(8) ? Edge() : random_.Below(8) * 4096};
    case 4:
      return op::Munmap{pid, Address(), Length()};
    case 5:
    case 6:
      return op::Mprotect{pid, Address(), Length(), Prot()};
    case 7:
      return op::Mremap{
          pid,      Address(), Length(), Length(), OneIn(20) ? static_cast<uint32_t>(Edge()) : static_cast<uint32_t>(random_.Below(8)),
          Address()};
    case 8:
      return op::Brk{pid, Address()};
    default:
      return op::SetVmaName{pid, Address(), Length(), OneIn(3) ? "" : "name"};
  }
}

Operation RandomProgram::MemoryOperation(Pid pid) {
  switch (random_.Below(12)) {
    case 0: {
      static constexpr int32_t kAdvice[] = {0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 25, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 100};
      return op::Madvise{pid, Address(), Length(), OneIn(20) ? static_cast<int32_t>(Edge()) : kAdvice[random_.Below(std::size(kAdvice))]};
    }
    case 1:
      return op::Mlock{pid, Address(), Length(), static_cast<uint32_t>(random_.Below(3))};
    case 2:
      return op::Munlock{pid, Address(), Length()};
    case 3:
      if (OneIn(2)) return op::Mlockall{pid, static_cast<uint32_t>(random_.Below(9))};
      return op::Munlockall{pid};
    case 4:
      return op::Msync{pid, Address(), Length(), static_cast<uint32_t>(random_.Below(8))};
    case 5:
      return op::Mincore{pid, Address(), random_.Below(100) * 4096};
    case 6:
      return op::WritePhysicalMemory{OneIn(4) ? Edge() : random_.Below(1 << 26) * 16, std::string(random_.Below(6000), 'P')};
    default:
      return op::AccessMemory{pid, Access()};
  }
}

Operation RandomProgram::FileOperation(Pid pid) {
  const int32_t fd = static_cast<int32_t>(random_.Below(6)) - 1;
  switch (random_.Below(17)) {
    case 0:
      return op::Open{pid,
                      OneIn(4)   ? "/nothing"
                      : OneIn(4) ? "/dev/hugepages/file"
                                 : "/data/file",
                      OneIn(10) ? static_cast<uint32_t>(Edge()) : 2u, OneIn(3) ? static_cast<int32_t>(random_.Below(5)) : -1};
    case 1:
      return op::Pipe{pid, OneIn(3) ? static_cast<int32_t>(random_.Below(5)) : -1};
    case 2:
      return op::Close{pid, fd};
    case 3:
      return op::MemfdCreate{pid, "memory", OneIn(3) ? 4u : 0u};  // MFD_HUGETLB
    case 4:
      if (OneIn(4)) return op::Ftruncate{pid, fd, random_.Below(4) << 22};
      return op::Ftruncate{pid, fd, OneIn(10) ? Edge() : random_.Below(64) * 1024};
    case 5:
      return op::Pread{pid, fd, Address(), random_.Below(9000), OneIn(10) ? Edge() : random_.Below(30000)};
    case 6:
      return op::Pwrite{pid, fd, Address(), random_.Below(9000), OneIn(10) ? Edge() : random_.Below(30000)};
    case 7:
      return op::Shmget{pid, OneIn(2) ? 0 : static_cast<int32_t>(random_.Below(3)), OneIn(10) ? Edge() : random_.Below(20) * 4096,
                        OneIn(3) ? 0u : 0x200u | 0600u | (OneIn(4) ? 0x800u : 0u)};
    case 8:
      return op::Shmat{pid, static_cast<int32_t>(random_.Below(5)), OneIn(2) ? 0 : Address(),
                       OneIn(10) ? static_cast<uint32_t>(Edge()) : 0u};
    case 9:
      return op::Shmdt{pid, Address()};
    case 10:
      return op::ShmRemove{pid, static_cast<int32_t>(random_.Below(5))};
    case 11:
      return op::Unlink{OneIn(4) ? "/dev/vdb" : "/data/file"};
    case 12:
      return op::Sync{};
    case 13:
      return op::Fsync{pid, fd};
    case 14:
      if (OneIn(4)) return op::CreateFile{"/dev/hugepages/file", op::FileSystem::kHugetlbfs, random_.Below(3) << 22, "", false};
      if (OneIn(3)) return op::CreateFile{"/dev/vdb", op::FileSystem::kBlockDevice, 4 << 20, "", false};
      return op::Swapon{"/dev/vdb", OneIn(2) ? std::optional<int32_t>() : static_cast<int32_t>(random_.Below(32768))};
    case 15:
      return op::Swapoff{OneIn(4) ? "/data/file" : "/dev/vdb"};
    default:
      return op::CreateFile{OneIn(4) ? "relative" : "/data/file", OneIn(2) ? op::FileSystem::kTmpfs : op::FileSystem::kExt4,
                            random_.Below(40000), "content", OneIn(2)};
  }
}

Operation RandomProgram::PageOperation() {
  if (!blocks_.empty() && (OneIn(2) || blocks_.size() > 200)) {
    const Block block = blocks_[random_.Below(blocks_.size())];
    if (OneIn(8)) return op::SplitPage{block.pfn, OneIn(5) ? Order() : block.order};
    if (OneIn(8)) return op::FreePagesExact{block.pfn, OneIn(5) ? Edge() : uint64_t{4096} << block.order, Cpu()};
    if (OneIn(8)) return op::FreePageList{{block.pfn, blocks_[random_.Below(blocks_.size())].pfn}, Cpu()};
    return op::FreePages{OneIn(10) ? Edge() : block.pfn + (OneIn(20) ? 1 : 0), OneIn(15) ? Order() : block.order, Cpu()};
  }
  const auto gfp = static_cast<op::GfpClass>(OneIn(30) ? random_.Below(256) : 1 + random_.Below(11));
  if (OneIn(10)) return op::AllocPagesExact{gfp, OneIn(10) ? Edge() : 1 + random_.Below(70000), Cpu(), false};
  if (OneIn(10)) return op::AllocPagesBulk{gfp, static_cast<uint32_t>(random_.Below(100)), Cpu()};
  if (OneIn(20)) return op::DrainPages{Cpu(), OneIn(2)};
  if (OneIn(15)) return op::CompactMemory{};
  if (OneIn(8)) return op::AllocPages{gfp, 0, Cpu(), false, 1 + random_.Below(40)};
  if (OneIn(20)) return op::FreePages{0, 0, Cpu(), 1 + random_.Below(40)};
  if (OneIn(20)) return op::GetFreePages{gfp, Order(), Cpu(), OneIn(2)};
  return op::AllocPages{gfp, Order(), Cpu(), OneIn(4)};
}

Operation RandomProgram::SlabOperation() {
  static constexpr const char* kCaches[] = {"mine", "yours", "task_struct", "vm_area_struct", "kmalloc-64", "nonsense"};
  const char* cache = kCaches[OneIn(3) ? random_.Below(std::size(kCaches)) : 0];
  const auto gfp = static_cast<op::GfpClass>(1 + random_.Below(11));
  const uint64_t object = objects_.empty() || OneIn(20) ? Edge() : objects_[random_.Below(objects_.size())] + (OneIn(20) ? 8 : 0);
  switch (random_.Below(13)) {
    case 0:
      return op::KmemCacheCreate{cache,
                                 static_cast<uint32_t>(OneIn(10) ? Edge() : 1 + random_.Below(6000)),
                                 OneIn(4) ? 64u : 0u,
                                 OneIn(10) ? static_cast<uint32_t>(Edge()) : 0u,
                                 OneIn(2),
                                 0};
    case 1:
      return OneIn(5) ? Operation(op::KmemCacheDestroy{cache}) : Operation(op::KmemCacheShrink{cache});
    case 2:
    case 3:
      return op::KmemCacheAlloc{cache, gfp, Cpu()};
    case 4:
      return op::KmemCacheFree{cache, object, Cpu()};
    case 5:
      return op::KmemCacheAllocBulk{cache, static_cast<uint32_t>(OneIn(20) ? Edge() : random_.Below(100)), gfp, Cpu()};
    case 6:
      return op::KmemCacheFreeBulk{cache, {object, objects_.empty() ? Edge() : objects_[random_.Below(objects_.size())]}, Cpu()};
    case 7:
      return op::Kmalloc{OneIn(20) ? Edge() : random_.Below(20000), gfp, Cpu()};
    case 8:
      return op::WriteSlabMemory{object + random_.Below(64), std::string(1 + random_.Below(64), 'x')};
    case 9:
      return op::AllocPercpu{OneIn(10) ? Edge() : 1 + random_.Below(9000), OneIn(10) ? Edge() : uint64_t{1} << random_.Below(13), OneIn(4)};
    case 10:
      return op::FreePercpu{object};
    case 11:
      return op::Krealloc{object, OneIn(20) ? Edge() : random_.Below(9000), gfp, Cpu()};
    default:
      return op::Kfree{object, Cpu()};
  }
}

Operation RandomProgram::SysctlOperation() {
  static constexpr const char* kNames[] = {
      "vm.overcommit_memory", "vm.overcommit_ratio",     "vm.overcommit_kbytes", "vm.min_free_kbytes",     "vm.watermark_scale_factor",
      "vm.max_map_count",     "vm.lowmem_reserve_ratio", "vm.mmap_min_addr",     "vm.user_reserve_kbytes", "vm.stat_refresh",
      "vm.nonsense"};
  if (OneIn(3)) {
    return op::WriteSysctl{OneIn(3) ? "vm.nr_overcommit_hugepages" : "vm.nr_hugepages", OneIn(10) ? "50" : OneIn(2) ? "3" : "1"};
  }
  static constexpr const char* kValues[] = {"0", "1", "2", "50", "100", "4096", "65530", "256 32 0 0", "-1", "99999999999", "x", ""};
  switch (random_.Below(4)) {
    case 0:
      return op::AdvanceTime{OneIn(10) ? static_cast<int64_t>(Edge()) : static_cast<int64_t>(random_.Below(3'000'000'000))};
    case 1:
      // Most sysctls go back to what lets processes live.
      return op::WriteSysctl{"vm.overcommit_memory", "1"};
    case 2:
      return SysfsOperation();
    default:
      return op::WriteSysctl{kNames[random_.Below(std::size(kNames))], kValues[random_.Below(std::size(kValues))]};
  }
}

Operation RandomProgram::SysfsOperation() {
  static constexpr const char* kPaths[] = {"transparent_hugepage/enabled",
                                           "transparent_hugepage/defrag",
                                           "transparent_hugepage/use_zero_page",
                                           "transparent_hugepage/khugepaged/max_ptes_none",
                                           "transparent_hugepage/khugepaged/pages_to_scan",
                                           "transparent_hugepage/khugepaged/scan_sleep_millisecs",
                                           "ksm/run",
                                           "ksm/run",
                                           "ksm/pages_to_scan",
                                           "ksm/max_page_sharing",
                                           "ksm/use_zero_pages",
                                           "ksm/full_scans",
                                           "hugepages/hugepages-64kB/nr_hugepages",
                                           "hugepages/hugepages-64kB/nr_overcommit_hugepages",
                                           "hugepages/hugepages-2048kB/nr_hugepages",
                                           "nonsense"};
  static constexpr const char* kValues[] = {"always", "madvise", "never", "defer", "0", "1", "1", "2", "500", "99999999999", "-1", ""};
  return op::WriteSysfs{std::string("/sys/kernel/mm/") + kPaths[random_.Below(std::size(kPaths))],
                        kValues[random_.Below(std::size(kValues))]};
}

Operation RandomProgram::CgroupOperation(Pid pid) {
  static constexpr const char* kPaths[] = {"a", "b", "a/c", "a/d", "nothing", ""};
  static constexpr const char* kFiles[] = {"memory.max",      "memory.high",    "memory.low",      "memory.min",
                                           "memory.swap.max", "memory.reclaim", "memory.oom.group"};
  const std::string path = kPaths[random_.Below(std::size(kPaths))];
  switch (random_.Below(8)) {
    case 0:
    case 1:
      return op::CreateCgroup{path};
    case 2:
      if (OneIn(3)) return op::RemoveCgroup{path};
      return op::WriteCgroupFile{"", "cgroup.subtree_control", "+memory"};
    case 3:
      return op::WriteCgroupFile{path, "cgroup.subtree_control", OneIn(5) ? "-memory" : "+memory"};
    case 4:
    case 5:
      return op::WriteCgroupFile{path, "cgroup.procs", std::to_string(pid.raw())};
    default: {
      const std::string value = OneIn(3) ? "max" : OneIn(6) ? "x" : std::to_string(random_.Below(600) * 4096);
      return op::WriteCgroupFile{path, kFiles[random_.Below(std::size(kFiles))], value};
    }
  }
}

Operation RandomProgram::Next() {
  switch (started_++) {
    case 0:
      return op::CreateFile{"/bin/program", op::FileSystem::kExt4, 0x12000, "program", true};
    case 1:
      return op::CreateFile{"/data/file", op::FileSystem::kTmpfs, 30000, "data", true};
    case 2:
      return op::CreateProcess{"first", 1000, false};
    case 3:
      return op::Exec{AnyPid(), SmallProgram(machine_.layout().kind), std::nullopt, {"first"}, {}};
    default:
      break;
  }
  // Programs that only ask processes without memory show little.
  int able = 0;
  for (const auto& [pid, process] : machine_.processes().all()) able += process->mm != nullptr;
  if (able < 2 && OneIn(2)) {
    for (const auto& [pid, process] : machine_.processes().all()) {
      if (process->mm == nullptr && !process->kernel_thread)
        return op::Exec{pid, SmallProgram(machine_.layout().kind), std::nullopt, {"next"}, {}};
    }
    return op::CreateProcess{"next", 1000, false};
  }
  const uint64_t dice = random_.Below(100);
  if (dice < 10) return ProcessOperation();
  if (dice < 40) return MappingOperation(AnyPid());
  if (dice < 75) return MemoryOperation(AnyPid());
  if (dice < 88) return FileOperation(AnyPid());
  if (dice < 92) return PageOperation();
  if (dice < 95) return SlabOperation();
  if (dice < 97) return CgroupOperation(AnyPid());
  return SysctlOperation();
}

void RandomProgram::Answered(const Operation& operation, const Outcome& outcome) {
  if (outcome.error != Errno::kOk) return;
  if (const auto* alloc = std::get_if<op::AllocPages>(&operation)) {
    if (alloc->movable_id != 0) return;
    blocks_.push_back({outcome.value, alloc->order});
  } else if (const auto* free = std::get_if<op::FreePages>(&operation)) {
    std::erase_if(blocks_, [&](const Block& block) { return block.pfn == free->pfn; });
  } else if (const auto* exact = std::get_if<op::AllocPagesExact>(&operation)) {
    for (uint64_t i = 0; i < (exact->bytes + 4095) / 4096; ++i) blocks_.push_back({outcome.value + i, 0});
  } else if (const auto* split = std::get_if<op::SplitPage>(&operation)) {
    std::erase_if(blocks_, [&](const Block& block) { return block.pfn == split->pfn; });
    for (uint64_t i = 0; i < (uint64_t{1} << split->order); ++i) blocks_.push_back({split->pfn + i, 0});
  }
  for (const Pfn pfn : outcome.pfns) blocks_.push_back({pfn.raw(), 0});
  const bool object = std::holds_alternative<op::Kmalloc>(operation) || std::holds_alternative<op::KmemCacheAlloc>(operation) ||
                      std::holds_alternative<op::Krealloc>(operation);
  if (object) objects_.push_back(outcome.value);
  objects_.insert(objects_.end(), outcome.addresses.begin(), outcome.addresses.end());
  if (objects_.size() > 1000) objects_.erase(objects_.begin(), objects_.begin() + 500);
}

}  // namespace mmlab
