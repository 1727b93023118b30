// How much of each list is looked at. Linux: mm/vmscan.c (prepare_scan_count, get_scan_count).
#include <algorithm>

#include "server/base/explanation.h"
#include "server/cgroup/cgroups.h"
#include "server/files/files.h"
#include "server/physical/page_allocator.h"
#include "server/reclaim/reclaim.h"
#include "server/reclaim/scan_control.h"

namespace mmlab {
namespace {

LruKind ActiveOf(LruKind inactive) { return inactive == LruKind::kInactiveAnon ? LruKind::kActiveAnon : LruKind::kActiveFile; }

uint64_t SquareRoot(uint64_t value) {
  uint64_t root = 0;
  while ((root + 1) * (root + 1) <= value) ++root;
  return root;
}

}  // namespace

bool Reclaim::CanReclaimAnonymous() const { return files_.swap().available(); }

bool Reclaim::MaySwap(uint16_t memcg) const {
  constexpr uint64_t kAny = 1;
  return CanReclaimAnonymous() && cgroups_.SwapRoom(memcg, kAny) > 0;
}

// The part of get_scan_count() about mem_cgroup_protection(): pressure in proportion to what is not protected.
uint64_t Reclaim::Unprotected(const Lruvec& lruvec, uint64_t pages, ScanControl& sc) const {
  if (lruvec.memcg == sc.target_memcg || lruvec.memcg == 0) return pages;
  const Memcg& memcg = cgroups_.memcg(lruvec.memcg);
  const uint64_t min = memcg.effective_min;
  const uint64_t low = memcg.effective_low;
  if (min == 0 && low == 0) return pages;
  uint64_t protection = min;
  if (!sc.low_reclaim && low > min) {
    protection = low;
    sc.low_skipped = true;
  }
  const uint64_t size = std::max(memcg.memory.usage, protection);
  return std::max(pages - pages * protection / (size + 1), kSwapClusterMax);
}

bool Reclaim::InactiveIsLow(const Lruvec& lruvec, LruKind inactive) const {
  const uint64_t old = memory_.lru().TreePages(lruvec.memcg, inactive);
  const uint64_t active = memory_.lru().TreePages(lruvec.memcg, ActiveOf(inactive));
  const uint64_t gib = (old + active) >> (30 - memory_.page_size().shift());
  return old * (gib > 0 ? SquareRoot(10 * gib) : 1) < active;
}

void Reclaim::PrepareScanCount(ScanControl& sc) {
  if (memory_.lru().generations_enabled()) return;
  const Lruvec& target = memory_.lru().of(sc.target_memcg);
  sc.anon_cost = target.anon_cost;
  sc.file_cost = target.file_cost;
  // Active pages move on only when there are too few inactive ones, or when pages come back that should have stayed: then the old ones are
  // stale.
  sc.deactivate_anon = sc.force_deactivate || target.activations[0] != target.refaults[0] || InactiveIsLow(target, LruKind::kInactiveAnon);
  sc.deactivate_file = sc.force_deactivate || target.activations[1] != target.refaults[1] || InactiveIsLow(target, LruKind::kInactiveFile);
  // Enough pages of files that nobody has used for long: those first.
  sc.cache_trim_mode = memory_.lru().TreePages(sc.target_memcg, LruKind::kInactiveFile) >> sc.priority > 0 && !sc.deactivate_file;
  if (sc.for_cgroup) return;
  uint64_t high_marks = 0;
  for (const Zone& zone : memory_.zones()) {
    if (zone.managed > 0) high_marks += zone.wmark_high + zone.watermark_boost;
  }
  const VmStat& stat = memory_.vm_stat();
  const auto file = static_cast<uint64_t>(stat.Get(NodeStat::kNrActiveFile) + stat.Get(NodeStat::kNrInactiveFile));
  const auto anon = static_cast<uint64_t>(stat.Get(NodeStat::kNrInactiveAnon));
  sc.file_is_tiny = file + memory_.free_pages().raw() <= high_marks && !sc.deactivate_anon && anon >> sc.priority > 0;
}

Reclaim::ScanCounts Reclaim::CountsToScan(const Lruvec& lruvec, ScanControl& sc) const {
  const char* rule = "both kinds by what it cost of late to take them away, weighed by vm.swappiness";
  bool anon = true;
  bool file = true;
  bool by_cost = false;
  if (!sc.may_swap) {
    rule = "pages of files only: a boost of the watermarks is not worth writing for";
    anon = false;
  } else if (!MaySwap(lruvec.memcg)) {
    rule = "pages of files only: no swap space is left for anonymous ones";
    anon = false;
  } else if (sc.for_cgroup && swappiness_ == 0) {
    rule = "pages of files only: vm.swappiness is 0";
    anon = false;
  } else if (sc.priority == 0 && swappiness_ != 0) {
    rule = "all of both kinds: memory is almost gone";
  } else if (sc.file_is_tiny) {
    rule = "anonymous pages only: there are hardly any pages of files";
    file = false;
  } else if (sc.cache_trim_mode) {
    rule = "pages of files only: there are enough that nobody used for long";
    anon = false;
  } else {
    by_cost = true;
  }
  // Each kind has a third of the pressure at least, before swappiness.
  const uint64_t costs = sc.anon_cost + sc.file_cost;
  const uint64_t anon_cost = costs + sc.anon_cost;
  const uint64_t file_cost = costs + sc.file_cost;
  const uint64_t anon_share = swappiness_ * (anon_cost + file_cost + 1) / (anon_cost + 1);
  const uint64_t file_share = (200 - swappiness_) * (anon_cost + file_cost + 1) / (file_cost + 1);
  ScanCounts counts{};
  for (const LruKind kind : {LruKind::kInactiveAnon, LruKind::kActiveAnon, LruKind::kInactiveFile, LruKind::kActiveFile}) {
    const uint64_t pages = lruvec.Pages(kind, sc.highest_zone);
    uint64_t scan = Unprotected(lruvec, pages, sc) >> sc.priority;
    // What a removed cgroup left behind goes a little faster.
    if (scan == 0 && lruvec.memcg != 0 && !cgroups_.memcg(lruvec.memcg).online) scan = std::min(pages, kSwapClusterMax);
    if (by_cost) scan = scan * (IsFile(kind) ? file_share : anon_share) / (anon_share + file_share);
    if (IsFile(kind) ? !file : !anon) scan = 0;
    counts[static_cast<size_t>(kind)] = scan;
  }
  if (Explanation* why = tracer_.explanation(); why != nullptr && (counts[0] | counts[1] | counts[2] | counts[3]) != 0) {
    ExplanationStep& step = why->Add(StepKind::kScanBalance, rule).Number("priority", sc.priority);
    step.Pages("inactive_anon", PageCount(counts[0])).Pages("active_anon", PageCount(counts[1]));
    step.Pages("inactive_file", PageCount(counts[2])).Pages("active_file", PageCount(counts[3]));
    if (by_cost) step.Number("anon_share", static_cast<int64_t>(anon_share)).Number("file_share", static_cast<int64_t>(file_share));
  }
  return counts;
}

}  // namespace mmlab
