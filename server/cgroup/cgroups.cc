#include "server/cgroup/cgroups.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/check.h"
#include "server/base/explanation.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

constexpr size_t kMostName = 255;  // NAME_MAX
constexpr uint64_t kMostMemcgs = 65535;

constexpr NodeStat kOfUserPages[] = {NodeStat::kNrAnonPages, NodeStat::kNrFilePages, NodeStat::kNrShmem, NodeStat::kNrMapped,
                                     NodeStat::kNrDirty};

}  // namespace

Cgroups::Cgroups(BuddyMemory& memory, int word_bytes, const int64_t& now, Tracer& tracer)
    : memory_(memory),
      no_limit_(word_bytes == 4 ? std::numeric_limits<int32_t>::max()
                                : static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) >> memory.page_size().shift()),
      now_(now),
      tracer_(tracer) {
  cgroups_.push_back(std::make_unique<Cgroup>(0, 0, "", now));
  memcgs_.emplace_back();
}

Cgroups::~Cgroups() = default;

// --- The hierarchy. ---

std::optional<uint32_t> Cgroups::Find(absl::string_view path) const {
  uint32_t at = 0;
  for (absl::string_view name : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    const auto it = cgroups_[at]->children.find(std::string(name));
    if (it == cgroups_[at]->children.end()) return std::nullopt;
    at = it->second;
  }
  return at;
}

std::string Cgroups::PathOf(uint32_t id) const {
  if (id == 0) return "/";
  std::string path;
  for (uint32_t at = id; at != 0; at = cgroups_[at]->parent) path = absl::StrCat("/", cgroups_[at]->name, path);
  return path;
}

std::vector<uint32_t> Cgroups::All() const {
  std::vector<uint32_t> all;
  std::vector<uint32_t> open = {0};
  while (!open.empty()) {
    const uint32_t at = open.back();
    open.pop_back();
    all.push_back(at);
    const auto& children = cgroups_[at]->children;
    for (auto it = children.rbegin(); it != children.rend(); ++it) open.push_back(it->second);
  }
  return all;
}

uint32_t Cgroups::NewId() {
  const auto free = std::find(cgroups_.begin() + 1, cgroups_.end(), nullptr);
  if (free != cgroups_.end()) return static_cast<uint32_t>(free - cgroups_.begin());
  cgroups_.emplace_back();
  return static_cast<uint32_t>(cgroups_.size() - 1);
}

SysResult<uint64_t> Cgroups::Make(absl::string_view path) {
  const size_t slash = path.rfind('/');
  const absl::string_view above = slash == absl::string_view::npos ? "" : path.substr(0, slash);
  const absl::string_view name = slash == absl::string_view::npos ? path : path.substr(slash + 1);
  const std::optional<uint32_t> parent = Find(above);
  if (!parent.has_value()) return Errno::kENOENT;
  if (name.empty() || name == "." || name == "..") return Errno::kEEXIST;
  if (name.size() > kMostName || name.find('\n') != absl::string_view::npos) return Errno::kEINVAL;
  const std::vector<absl::string_view> files = FileNames(*parent);
  if (cgroups_[*parent]->children.contains(std::string(name)) || std::find(files.begin(), files.end(), name) != files.end()) {
    return Errno::kEEXIST;
  }
  if (memcg_count_ == kMostMemcgs) return Errno::kENOSPC;  // No number is left.
  const uint32_t id = NewId();
  cgroups_[id] = std::make_unique<Cgroup>(id, *parent, name, now_);
  cgroups_[*parent]->children[std::string(name)] = id;
  ++count_;
  stocks_.resize(static_cast<size_t>(memory_.cpus()));
  cgroups_[id]->memcg = cgroups_[*parent]->memcg;
  cgroups_[id]->inode = next_inode_++;
  if (cgroups_[*parent]->memory_below) Online(*cgroups_[id]);
  UpdateCharging();
  return id;
}

Errno Cgroups::Remove(absl::string_view path) {
  const std::optional<uint32_t> id = Find(path);
  if (!id.has_value()) return Errno::kENOENT;
  Cgroup& cgroup = *cgroups_[*id];
  if (*id == 0 || !cgroup.children.empty()) return Errno::kEBUSY;
  if (cgroup.memory) Offline(cgroup);
  cgroups_[cgroup.parent]->children.erase(cgroup.name);
  cgroups_[*id].reset();
  --count_;
  UpdateCharging();
  return Errno::kOk;
}

void Cgroups::UpdateCharging() { memory_.SetCharging(count_ > 1 || memcg_count_ > 0); }

void Cgroups::Online(Cgroup& cgroup) {
  size_t number = 1;
  while (number < memcgs_.size() && memcgs_[number] != nullptr) ++number;
  if (number == memcgs_.size()) memcgs_.emplace_back();
  const uint16_t parent = cgroups_[cgroup.parent]->memcg;
  memcgs_[number] = std::make_unique<Memcg>(static_cast<uint16_t>(number), parent, PathOf(cgroup.id), no_limit_);
  memcgs_[number]->inode = cgroup.inode;
  ++memcg_count_;
  memory_.lru().Make(static_cast<uint16_t>(number), parent);
  cgroup.memory = true;
  PassMemcg(cgroup, static_cast<uint16_t>(number));
}

void Cgroups::PassMemcg(const Cgroup& cgroup, uint16_t memcg) {
  cgroups_[cgroup.id]->memcg = memcg;
  for (const auto& [name, child] : cgroup.children) {
    if (!cgroups_[child]->memory) PassMemcg(*cgroups_[child], memcg);
  }
}

void Cgroups::Offline(Cgroup& cgroup) {
  const uint16_t number = cgroup.memcg;
  Memcg& memcg = of(number);
  if (memcg.object_bytes == 0) ReleaseObjects(number);
  DrainAllStock(number);
  memcg.online = false;
  memcg.memory.min = memcg.memory.low = 0;
  // memcg_reparent_objcgs(): what the kernel needs for it is from now on the next one's above.
  uint16_t heir = memcg.parent;
  while (heir != 0 && !of(heir).online) heir = of(heir).parent;
  if (memcg.kernel_pages > 0) {
    memcg.memory.usage -= memcg.kernel_pages;
    if (heir != 0) of(heir).kernel_pages += memcg.kernel_pages;
    memcg.kernel_pages = 0;
  }
  for (size_t i = 0; i < memcg.slab_bytes.size(); ++i) {
    if (heir != 0) of(heir).slab_bytes[i] += memcg.slab_bytes[i];
    memcg.slab_bytes[i] = 0;
  }
  memory_.lru().MoveKernelStats(number, heir);
  cgroup.memory = false;
  PassMemcg(cgroup, cgroups_[cgroup.parent]->memcg);
  ReleaseIfUnused(number);
}

void Cgroups::ReleaseUnused() {
  release_postponed_ = false;
  for (size_t number = memcgs_.size() - 1; number > 0; --number) {
    if (memcgs_[number] != nullptr && !memcgs_[number]->online) ReleaseIfUnused(static_cast<uint16_t>(number));
  }
}

void Cgroups::ReleaseIfUnused(uint16_t number) {
  if (pins_ > 0) {
    release_postponed_ = true;
    return;
  }
  while (number != 0) {
    Memcg& memcg = of(number);
    if (memcg.online || memcg.frames > 0 || memcg.swapped > 0 || memcg.object_bytes > 0) return;
    for (const std::unique_ptr<Memcg>& other : memcgs_) {
      if (other != nullptr && other->parent == number) return;
    }
    const uint16_t parent = memcg.parent;
    MMLAB_CHECK(memcg.memory.usage == 0 && memcg.swap.usage == 0);
    // What happened below stays in the sums of those above.
    if (parent != 0) {
      const VmStat& stat = memory_.lru().stat(number);
      VmStat& sum = memory_.lru().stat(parent);
      for (int i = 0; i < kVmEvents; ++i) sum.Count(static_cast<VmEvent>(i), stat.Get(static_cast<VmEvent>(i)));
      for (int i = 0; i < kNodeStats; ++i) sum.Add(static_cast<NodeStat>(i), stat.Get(static_cast<NodeStat>(i)));
    }
    memory_.lru().Drop(number);
    memcgs_[number].reset();
    --memcg_count_;
    number = parent;
  }
  UpdateCharging();
}

uint64_t Cgroups::InodeOf(uint16_t memcg) const {
  while (memcg != 0 && !memcgs_[memcg]->online) memcg = memcgs_[memcg]->parent;
  return memcg == 0 ? cgroups_[0]->inode : memcgs_[memcg]->inode;
}

bool Cgroups::IsWithin(uint16_t memcg, uint16_t ancestor) const {
  while (memcg != ancestor && memcg != 0) memcg = memcgs_[memcg]->parent;
  return memcg == ancestor;
}

std::vector<uint16_t> Cgroups::Subtree(uint16_t memcg) const {
  if (memcg_count_ == 0) return {memcg};
  std::vector<uint16_t> subtree;
  std::vector<uint16_t> open = {memcg};
  while (!open.empty()) {
    const uint16_t at = open.back();
    open.pop_back();
    subtree.push_back(at);
    for (size_t i = memcgs_.size() - 1; i > 0; --i) {
      if (memcgs_[i] != nullptr && memcgs_[i]->parent == at) open.push_back(static_cast<uint16_t>(i));
    }
  }
  return subtree;
}

int64_t Cgroups::Sum(uint16_t memcg, NodeStat item) const {
  const LruLists& lru = memory_.lru();
  if (memcg == 0) return memory_.vm_stat().Get(item);
  int64_t sum = 0;
  for (const uint16_t number : Subtree(memcg)) {
    // Lengths of lists are with the lists.
    sum += item <= NodeStat::kNrUnevictable ? static_cast<int64_t>(lru.of(number).Pages(static_cast<LruKind>(item)))
                                            : lru.stat(number).Get(item);
  }
  return sum;
}

uint64_t Cgroups::Sum(uint16_t memcg, VmEvent item) const {
  if (memcg == 0) return memory_.vm_stat().Get(item);
  uint64_t sum = 0;
  for (const uint16_t number : Subtree(memcg)) sum += memory_.lru().stat(number).Get(item);
  return sum;
}

// --- Protection and events. ---

void Cgroups::CalculateProtection(uint16_t root, uint16_t number) {
  if (number == root || number == 0 || of(number).memory.usage == 0) return;
  Memcg& memcg = of(number);
  if (memcg.parent == root) {
    memcg.effective_min = memcg.memory.min;
    memcg.effective_low = memcg.memory.low;
    return;
  }
  const Memcg& parent = of(memcg.parent);
  // effective_protection(): what a cgroup uses of its own protection; less where all children together claim more than theirs above has.
  const auto effective = [&](uint64_t PageCounter::*setting, uint64_t of_parent) {
    uint64_t claimed = 0;
    for (const std::unique_ptr<Memcg>& child : memcgs_) {
      if (child != nullptr && child->parent == memcg.parent) claimed += std::min(child->memory.usage, child->memory.*setting);
    }
    const uint64_t own = std::min(memcg.memory.usage, memcg.memory.*setting);
    return claimed > of_parent ? own * of_parent / claimed : own;
  };
  memcg.effective_min = effective(&PageCounter::min, parent.effective_min);
  memcg.effective_low = effective(&PageCounter::low, parent.effective_low);
}

void Cgroups::CountMemcgEvent(uint16_t memcg, MemcgEvent event) {
  const auto index = static_cast<size_t>(event);
  if (memcg != 0) ++of(memcg).local_events[index];
  for (; memcg != 0; memcg = of(memcg).parent) ++of(memcg).events[index];
}

uint16_t Cgroups::OomGroup(uint16_t victim, uint16_t oom_domain) const {
  // A victim outside of what is out of memory is killed alone.
  if (!IsWithin(victim, oom_domain)) return 0;
  uint16_t group = 0;
  for (uint16_t at = victim; at != 0; at = memcgs_[at]->parent) {
    if (memcgs_[at]->oom_group) group = at;
    if (at == oom_domain) break;
  }
  return group;
}

void Cgroups::SetCurrent(uint32_t cgroup) {
  if (cgroup == current_) return;
  current_ = cgroup;
  over_high_ = 0;
}

void Cgroups::AdvanceTime() {
  for (const std::unique_ptr<Cgroup>& cgroup : cgroups_) {
    if (cgroup != nullptr) cgroup->psi.Advance(now_);
  }
}

// --- As one state. ---

namespace {

// Anonymous pages of the frame, or of the huge page that starts there, that somebody maps. The first tail of a huge page counts the entries
// that map it as a whole.
int64_t MappedAnonPages(const FrameBlock& block, uint32_t i) {
  const Frame& frame = block.frames[i];
  if (frame.state != FrameState::kAnon) return 0;
  const uint32_t pages = CompoundPages(frame);
  if (pages > 1 && block.frames[i + 1].index > 0) return pages;
  int64_t mapped = 0;
  for (uint32_t j = 0; j < pages; ++j) mapped += block.frames[i + j].mapcount > 0;
  return mapped;
}

}  // namespace

void Cgroups::CheckInvariants(std::vector<std::string>* problems) const {
  struct Counted {
    uint64_t frames = 0, kernel_frames = 0, user = 0, kernel = 0;
    std::array<int64_t, std::size(kOfUserPages)> stats{};
  };
  std::vector<Counted> counted(memcgs_.size());
  memory_.lists().ForEachTouched([&](uint32_t base, const FrameBlock& block) {
    for (uint32_t i = 0; i < FrameBlock::kFrames; ++i) {
      const Frame& frame = block.frames[i];
      if (frame.memcg == 0) continue;
      if (frame.state <= FrameState::kPcp || !Exists(frame.memcg)) {
        problems->push_back(absl::StrCat("frame ", base + i, " is charged to memory cgroup ", frame.memcg, ", which it cannot be"));
        continue;
      }
      Counted& of = counted[frame.memcg];
      const uint64_t pages = uint64_t{1} << frame.order;
      of.frames += pages;
      const bool kernel = (frame.flags & kPgKernelCharge) != 0;
      (kernel ? of.kernel_frames : of.user) += pages;
      if (const uint16_t owner = memory_.lru().kernel_owner(frame.memcg); kernel && owner != 0) counted[owner].kernel += pages;
      of.stats[0] += MappedAnonPages(block, i);
      of.stats[1] += frame.state == FrameState::kFile || frame.state == FrameState::kShmem || (frame.flags & kPgSwapCache) != 0;
      of.stats[2] += frame.state == FrameState::kShmem && frame.mapping != 0;  // In its file still, not on its way to swap.
      of.stats[3] += (frame.state == FrameState::kFile || frame.state == FrameState::kShmem) && frame.mapcount > 0;
      of.stats[4] += frame.state == FrameState::kFile && (frame.flags & kPgDirty) != 0;
    }
  });
  std::vector<uint64_t> object_pages(memcgs_.size());
  CheckObjects(object_pages, problems);
  for (size_t i = 0; i < counted.size(); ++i) counted[i].kernel += object_pages[i];
  for (const std::unique_ptr<Memcg>& memcg : memcgs_) {
    if (memcg == nullptr) continue;
    const Counted& sums = counted[memcg->number];
    uint64_t usage = sums.user + sums.kernel;
    uint64_t swap = memcg->swapped;
    for (const std::unique_ptr<Memcg>& child : memcgs_) {
      if (child == nullptr || child->parent != memcg->number) continue;
      usage += child->memory.usage;
      swap += child->swap.usage;
    }
    for (const Stock& stock : stocks_) usage += stock.memcg == memcg->number ? stock.pages : 0;
    const auto expect = [&](absl::string_view what, uint64_t is, uint64_t should_be) {
      if (is != should_be)
        problems->push_back(absl::StrCat("memory cgroup ", memcg->path, ": ", what, " is ", is, ", counted ", should_be));
    };
    expect("usage", memcg->memory.usage, usage);
    expect("swap usage", memcg->swap.usage, swap);
    expect("its number of frames", memcg->frames, sums.frames);
    expect("its number of frames of the kernel", memcg->kernel_frames, sums.kernel_frames);
    expect("its kernel memory", memcg->kernel_pages, sums.kernel);
    for (size_t i = 0; i < std::size(kOfUserPages); ++i) {
      expect(StatName(kOfUserPages[i]), static_cast<uint64_t>(memory_.lru().stat(memcg->number).Get(kOfUserPages[i])),
             static_cast<uint64_t>(sums.stats[i]));
    }
  }
}

void Cgroups::AddToHash(StateHasher& hasher) const {
  hasher.Add(next_inode_);
  for (const std::unique_ptr<Cgroup>& cgroup : cgroups_) {
    if (cgroup == nullptr) continue;
    hasher.Add(uint64_t{cgroup->id} << 32 | cgroup->parent);
    hasher.AddBytes(cgroup->name.data(), cgroup->name.size());
    hasher.Add(cgroup->inode);
    hasher.Add(uint64_t{cgroup->memcg} << 2 | (cgroup->memory ? 2 : 0) | (cgroup->memory_below ? 1 : 0));
    cgroup->psi.AddToHash(hasher);
  }
  for (const std::unique_ptr<Memcg>& memcg : memcgs_) {
    if (memcg == nullptr) continue;
    hasher.Add(uint64_t{memcg->number} << 32 | uint64_t{memcg->parent} << 2 | (memcg->online ? 2 : 0) | (memcg->oom_group ? 1 : 0));
    for (const PageCounter* counter : {&memcg->memory, &memcg->swap}) {
      for (const uint64_t value :
           {counter->usage, counter->watermark, counter->failures, counter->min, counter->low, counter->high, counter->max}) {
        hasher.Add(value);
      }
    }
    for (const uint64_t value : {memcg->effective_min, memcg->effective_low, memcg->kernel_pages, memcg->frames, memcg->swapped,
                                 memcg->object_bytes, memcg->object_rest, memcg->zswap_max}) {
      hasher.Add(value);
    }
    for (const int64_t bytes : memcg->slab_bytes) hasher.Add(static_cast<uint64_t>(bytes));
    for (const uint64_t count : memcg->events) hasher.Add(count);
    for (const uint64_t count : memcg->local_events) hasher.Add(count);
  }
  for (const Stock& stock : stocks_) {
    hasher.Add(uint64_t{stock.memcg} << 32 | stock.pages);
    hasher.Add(uint64_t{stock.objects_of} << 32 | stock.object_bytes);
    for (const int64_t bytes : stock.slab_bytes) hasher.Add(static_cast<uint64_t>(bytes));
  }
}

uint64_t Cgroups::HostMemory() const {
  uint64_t bytes = sizeof(Cgroups) + (cgroups_.capacity() + memcgs_.capacity()) * sizeof(void*) + stocks_.capacity() * sizeof(Stock) +
                   count_ * (sizeof(Cgroup) + 32) + memcg_count_ * sizeof(Memcg);
  for (const std::unique_ptr<Memcg>& memcg : memcgs_) bytes += memcg == nullptr ? 0 : memcg->path.capacity();
  return bytes;
}

}  // namespace mmlab
