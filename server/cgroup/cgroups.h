#ifndef MMLAB_SERVER_CGROUP_CGROUPS_H_
#define MMLAB_SERVER_CGROUP_CGROUPS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/string_view.h"
#include "server/base/errno.h"
#include "server/base/hash.h"
#include "server/base/result.h"
#include "server/cgroup/memcg.h"
#include "server/cgroup/psi_group.h"
#include "server/physical/memory_controller.h"

namespace mmlab {

class BuddyMemory;
class CgroupPressure;
class Tracer;

// A cgroup of the unified hierarchy (version 2). Linux: struct cgroup, kernel/cgroup/cgroup.c.
struct Cgroup {
  Cgroup(uint32_t its_id, uint32_t its_parent, absl::string_view its_name, int64_t now)
      : id(its_id), parent(its_parent), name(its_name), psi(now) {}

  uint32_t id;      // What a process has in Process::cgroup.
  uint32_t parent;  // The root is its own.
  std::string name;
  absl::btree_map<std::string, uint32_t> children;
  bool memory_below = false;  // cgroup.subtree_control has "memory".
  bool memory = false;        // It has a memory controller of its own: its parent's subtree_control has.
  uint16_t memcg = 0;         // Whom its processes' pages are charged to: its own, or that of the nearest above it.
  uint64_t inode = 1;         // Of its directory.
  PsiGroup psi;
};

// What became of writing a file of a cgroup.
struct CgroupWrite {
  Errno error = Errno::kOk;
  std::string unimplemented;  // Why the value is not simulated; then nothing changed.
};

// The cgroups of one machine, of which the memory controller is simulated, and who is charged for which page. Linux: mm/memcontrol.c,
// kernel/cgroup/cgroup.c, mm/page_counter.c.
//
// Always true: a memory cgroup's usage is what pages are charged to it, what CPUs hold in stock for it, and the usage of those below it;
// Frame::memcg is 0 or a memory cgroup that exists.
// Left to others: which processes are in a cgroup (process), freeing pages and killing (reclaim).
class Cgroups final : public MemoryController {
 public:
  static constexpr uint64_t kChargeBatch = 64;  // MEMCG_CHARGE_BATCH

  // As a machine's operations take none of its time, what it costs to free a page is a figure: as much as the recorded kernels took.
  static constexpr int64_t kReclaimNanosecondsPerPage = 35'000;

  // All outlive this. `now` is the machine's clock, nanoseconds.
  Cgroups(BuddyMemory& memory, int word_bytes, const int64_t& now, Tracer& tracer);
  ~Cgroups() override;

  void SetPressure(CgroupPressure* pressure) { pressure_ = pressure; }

  // Keeps removed cgroups that lose their last page for as long as somebody goes through the lists (css_get()).
  class Pin {
   public:
    explicit Pin(Cgroups& cgroups) : cgroups_(cgroups) { ++cgroups_.pins_; }
    ~Pin() {
      if (--cgroups_.pins_ == 0 && cgroups_.release_postponed_) cgroups_.ReleaseUnused();
    }
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;

   private:
    Cgroups& cgroups_;
  };

  // --- The hierarchy. Paths are "a/b"; "" is the root. ---

  uint64_t no_limit() const { return no_limit_; }  // PAGE_COUNTER_MAX, pages: what "max" stands for.
  std::optional<uint32_t> Find(absl::string_view path) const;
  const Cgroup& cgroup(uint32_t id) const { return *cgroups_[id]; }
  std::string PathOf(uint32_t id) const;  // "/a/b"; "/" for the root.
  // All, the root first, each before those below it.
  std::vector<uint32_t> All() const;
  size_t size() const { return count_; }

  // mkdir: kENOENT the one above is not there, kEEXIST, kEINVAL a name that no directory can have.
  SysResult<uint64_t> Make(absl::string_view path);
  // rmdir, of one that no process is in: kENOENT, kEBUSY others are below it or it is the root. What it is charged for stays charged.
  Errno Remove(absl::string_view path);

  // --- Files. `populated`: whether processes are in the cgroup itself. ---

  // Names of the files that a cgroup has, sorted, but those that list processes.
  std::vector<absl::string_view> FileNames(uint32_t id) const;
  // Nothing: it has no such file, or one that can only be written.
  std::optional<std::string> Read(uint32_t id, absl::string_view file) const;
  // Not cgroup.procs. kENOENT no such file, kEINVAL, kEBUSY, kEAGAIN as the kernel answers; kEACCES a file that can only be read.
  CgroupWrite Write(uint32_t id, absl::string_view file, absl::string_view text, bool populated);
  // "anon 4096\n...": memory.stat, and what the log shows at an OOM kill.
  std::string StatText(uint16_t memcg) const;

  // --- Memory cgroups by number. ---

  const Memcg& memcg(uint16_t number) const { return *memcgs_[number]; }
  bool Exists(uint16_t number) const { return number < memcgs_.size() && memcgs_[number] != nullptr; }
  uint16_t MemcgOf(uint32_t cgroup) const { return cgroups_[cgroup]->memcg; }
  // page_cgroup_ino(): the inode of the nearest cgroup that is still there, from the one that is charged upward.
  uint64_t InodeOf(uint16_t memcg) const;
  // Whether one is the other or below it. Everything is below 0.
  bool IsWithin(uint16_t memcg, uint16_t ancestor) const;
  // mem_cgroup_iter(): one and all below it, each before those below it; dying ones too.
  std::vector<uint16_t> Subtree(uint16_t memcg) const;
  // Sums of a memory cgroup and all below it.
  int64_t Sum(uint16_t memcg, NodeStat item) const;
  uint64_t Sum(uint16_t memcg, VmEvent item) const;

  // mem_cgroup_calculate_protection(): how much of a cgroup is protected when `root` is short. Top down, as its children use the result.
  void CalculateProtection(uint16_t root, uint16_t memcg);
  void CountMemcgEvent(uint16_t memcg, MemcgEvent event);
  // mem_cgroup_get_oom_group(): the highest cgroup that is killed as a whole, between the victim's and the one out of memory; 0: none.
  uint16_t OomGroup(uint16_t victim, uint16_t oom_domain) const;

  // --- MemoryController ---

  void SetCurrent(uint32_t cgroup) override;
  bool ChargePage(Pfn head, PageOrder order, Gfp gfp) override;
  bool ChargeAgain(Pfn head, PageOrder order, uint16_t memcg, Gfp gfp) override;
  bool ChargeKernelPages(Pfn head, int order, Gfp gfp) override;
  uint16_t ObjectOwner() const override { return cgroups_[current_]->memcg; }
  bool ChargeObject(uint16_t owner, uint32_t bytes, bool reclaimable, Gfp gfp) override;
  void UnchargeObject(uint16_t owner, uint32_t bytes, bool reclaimable) override;
  void Uncharge(Pfn head, int order) override;
  void ReturnToUser() override;
  void CountEvent(VmEvent item) override;
  std::optional<uint16_t> ChargeSwap(uint16_t memcg, uint64_t pages) override;
  void UnchargeSwap(uint16_t memcg, uint64_t pages) override;
  uint64_t SwapRoom(uint16_t memcg, uint64_t free) const override;
  void Stall(StallKind kind, int64_t nanoseconds) override;

  // The averages of pressure follow the clock.
  void AdvanceTime();
  const PsiGroup& psi(uint32_t cgroup = 0) const { return cgroups_[cgroup]->psi; }

  void CheckInvariants(std::vector<std::string>* problems) const;
  void AddToHash(StateHasher& hasher) const;
  uint64_t HostMemory() const;

 private:
  // What one CPU has charged in advance (struct memcg_stock_pcp).
  struct Stock {
    uint16_t memcg = 0;
    uint64_t pages = 0;
    // Of objects: for whom, bytes charged in advance, and what slab_bytes has yet to be told.
    uint16_t objects_of = 0;
    uint64_t object_bytes = 0;
    std::array<int64_t, 2> slab_bytes{};
  };

  Memcg& of(uint16_t number) { return *memcgs_[number]; }
  Stock& stock();

  // cgroups.cc
  uint32_t NewId();
  void Online(Cgroup& cgroup);                           // css_online(): its own memory cgroup.
  void Offline(Cgroup& cgroup);                          // css_offline()
  void PassMemcg(const Cgroup& cgroup, uint16_t memcg);  // To those below without one of their own.
  void ReleaseIfUnused(uint16_t number);
  void ReleaseUnused();
  void UpdateCharging();

  // charge.cc
  bool TryCharge(uint16_t number, uint64_t pages, Gfp gfp);
  Memcg* ChargeCounters(uint16_t number, uint64_t pages);  // Null: charged; else the one whose limit refused.
  void ForceCharge(uint16_t number, uint64_t pages, bool raise_peak = true);
  void UnchargeCounters(uint16_t number, uint64_t pages);
  bool ConsumeStock(uint16_t number, uint64_t pages);
  void RefillStock(Stock& stock, uint16_t number, uint64_t pages);
  void DrainStock(Stock& stock);
  void DrainAllStock(uint16_t root);
  void NoteOverHigh(uint16_t number, uint64_t pages);
  void HandleOverHigh();
  uint64_t ReclaimHigh(uint16_t number, uint64_t pages);
  uint64_t HighDelay(uint16_t number, uint64_t pages);
  bool CommitCharge(Pfn head, int order, uint16_t number, bool kernel, Gfp gfp);
  uint64_t ReclaimFrom(uint16_t number, uint64_t pages);
  uint64_t StallInReclaim(uint16_t number, uint64_t pages);
  void Refused(const Memcg& over, uint64_t pages) const;

  // objects.cc
  uint64_t page_bytes() const;
  bool ChargeObjectPages(uint16_t owner, uint64_t pages, Gfp gfp);
  void UnchargeObjectPages(Stock& stock, uint16_t owner, uint64_t pages);
  void SwitchObjectStock(Stock& stock, uint16_t owner);
  void RefillObjectStock(uint16_t owner, uint64_t bytes, bool allow_uncharge);
  void DrainObjectStock(Stock& stock);
  void ReleaseObjects(uint16_t owner);
  void CountSlab(uint16_t owner, int64_t bytes, bool reclaimable);
  void AddSlab(uint16_t owner, size_t reclaimable, int64_t bytes);
  void CheckObjects(std::vector<uint64_t>& kernel_pages, std::vector<std::string>* problems) const;

  // files.cc
  CgroupWrite SetSubtreeControl(Cgroup& cgroup, absl::string_view text, bool populated);
  std::optional<uint64_t> ParsePages(absl::string_view text, bool allow_max) const;
  std::string LimitText(uint64_t pages) const;
  Errno WriteMemory(uint16_t number, absl::string_view file, absl::string_view text);
  Errno WriteReclaim(uint16_t number, uint64_t pages);
  void ShrinkToHigh(uint16_t number);
  void ShrinkToMax(uint16_t number);
  std::optional<std::string> ReadMemory(uint16_t number, absl::string_view file) const;
  std::string StatText(uint16_t memcg, bool numa) const;
  bool counts_by_node() const;  // CONFIG_NUMA
  std::string EventsText(const std::array<uint64_t, kMemcgEvents>& events) const;

  BuddyMemory& memory_;
  const uint64_t no_limit_;  // PAGE_COUNTER_MAX, pages.
  const int64_t& now_;
  Tracer& tracer_;
  CgroupPressure* pressure_ = nullptr;
  std::vector<std::unique_ptr<Cgroup>> cgroups_;  // By id; removed ones null.
  std::vector<std::unique_ptr<Memcg>> memcgs_;    // By number; 0, the root, null.
  std::vector<Stock> stocks_;                     // By CPU; made with the first cgroup.
  size_t count_ = 1;                              // Cgroups, with the root.
  size_t memcg_count_ = 0;                        // Memory cgroups, with dying ones.
  uint64_t next_inode_ = 2;
  uint32_t current_ = 0;
  int pins_ = 0;
  bool release_postponed_ = false;
  uint64_t over_high_ = 0;   // memcg_nr_pages_over_high of the acting process.
  bool reclaiming_ = false;  // PF_MEMALLOC: what reclaim itself needs is charged whatever the limits say.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_CGROUP_CGROUPS_H_
