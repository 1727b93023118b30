#include "server/base/explanation.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mmlab {

ExplanationStep& ExplanationStep::Add(absl::string_view name, FactUnit unit, int64_t value) {
  facts.push_back(Fact{std::string(name), unit, value, {}});
  return *this;
}

ExplanationStep& ExplanationStep::Text(absl::string_view name, absl::string_view value) {
  facts.push_back(Fact{std::string(name), FactUnit::kText, 0, std::string(value)});
  return *this;
}

bool Explanation::Keeps(StepKind kind) {
  if (steps_.size() < kFirstSteps) return true;
  uint16_t& more = more_[static_cast<size_t>(kind)];
  if (steps_.size() >= kMaxSteps || more >= kMoreOfAKind) return false;
  ++more;
  return true;
}

ExplanationStep& Explanation::Add(StepKind kind, absl::string_view text) {
  if (!Keeps(kind)) {
    ++steps_left_out_;
    overflow_ = ExplanationStep();
    return overflow_;
  }
  const uint64_t number = steps_.size() + steps_left_out_ + 1;
  ExplanationStep& step = steps_.emplace_back();
  step.kind = kind;
  step.number = number;
  step.text = std::string(text);
  return step;
}

absl::string_view StepKindName(StepKind kind) {
  switch (kind) {
    case StepKind::kUnspecified:
      return "unspecified";
    case StepKind::kSystemCallCheck:
      return "system_call_check";
    case StepKind::kOvercommit:
      return "overcommit";
    case StepKind::kVmaLookup:
      return "vma_lookup";
    case StepKind::kVmaGapSearch:
      return "vma_gap_search";
    case StepKind::kVmaMerge:
      return "vma_merge";
    case StepKind::kVmaSplit:
      return "vma_split";
    case StepKind::kStackGrowth:
      return "stack_growth";
    case StepKind::kPermissionCheck:
      return "permission_check";
    case StepKind::kPageTableWalk:
      return "page_table_walk";
    case StepKind::kFaultDecision:
      return "fault_decision";
    case StepKind::kSignal:
      return "signal";
    case StepKind::kPageTableAlloc:
      return "page_table_alloc";
    case StepKind::kZoneCheck:
      return "zone_check";
    case StepKind::kFrameSource:
      return "frame_source";
    case StepKind::kFrameRelease:
      return "frame_release";
    case StepKind::kAllocationFailure:
      return "allocation_failure";
    case StepKind::kFileLookup:
      return "file_lookup";
    case StepKind::kCopyOnWrite:
      return "copy_on_write";
    case StepKind::kAddressLayout:
      return "address_layout";
    case StepKind::kRequestZones:
      return "request_zones";
    case StepKind::kCompactionSuitable:
      return "compaction_suitable";
    case StepKind::kCompactionDeferred:
      return "compaction_deferred";
    case StepKind::kPagesIsolated:
      return "pages_isolated";
    case StepKind::kFreePagesIsolated:
      return "free_pages_isolated";
    case StepKind::kPageMigrated:
      return "page_migrated";
    case StepKind::kPageNotMigrated:
      return "page_not_migrated";
    case StepKind::kCompactionFinished:
      return "compaction_finished";
    case StepKind::kKcompactdWake:
      return "kcompactd_wake";
    case StepKind::kAllocationRetry:
      return "allocation_retry";
    case StepKind::kSlabCacheChoice:
      return "slab_cache_choice";
    case StepKind::kSlabObject:
      return "slab_object";
    case StepKind::kVmapAreaSearch:
      return "vmap_area_search";
    case StepKind::kVmapPurge:
      return "vmap_purge";
    case StepKind::kVmapBlock:
      return "vmap_block";
    case StepKind::kKmapSlot:
      return "kmap_slot";
    case StepKind::kPercpuArea:
      return "percpu_area";
    case StepKind::kKswapdWake:
      return "kswapd_wake";
    case StepKind::kKswapdSleep:
      return "kswapd_sleep";
    case StepKind::kDirectReclaim:
      return "direct_reclaim";
    case StepKind::kScanBalance:
      return "scan_balance";
    case StepKind::kPageEvicted:
      return "page_evicted";
    case StepKind::kPageKept:
      return "page_kept";
    case StepKind::kSwapSlot:
      return "swap_slot";
    case StepKind::kSwapOut:
      return "swap_out";
    case StepKind::kSwapIn:
      return "swap_in";
    case StepKind::kWriteback:
      return "writeback";
    case StepKind::kReadahead:
      return "readahead";
    case StepKind::kTlbFlush:
      return "tlb_flush";
    case StepKind::kRefault:
      return "refault";
    case StepKind::kPageReplacement:
      return "page_replacement";
    case StepKind::kGenerationAdded:
      return "generation_added";
    case StepKind::kGenerationScan:
      return "generation_scan";
    case StepKind::kPageSorted:
      return "page_sorted";
    case StepKind::kOomScore:
      return "oom_score";
    case StepKind::kCgroupCharge:
      return "cgroup_charge";
    case StepKind::kCgroupReclaim:
      return "cgroup_reclaim";
    case StepKind::kCgroupThrottle:
      return "cgroup_throttle";
    case StepKind::kCgroupProtected:
      return "cgroup_protected";
    case StepKind::kContextSwitch:
      return "context_switch";
    case StepKind::kAsidChoice:
      return "asid_choice";
    case StepKind::kPhysicalAccess:
      return "physical_access";
    case StepKind::kHugeFault:
      return "huge_fault";
    case StepKind::kHugeSplit:
      return "huge_split";
    case StepKind::kHugeCollapse:
      return "huge_collapse";
    case StepKind::kHugetlbPool:
      return "hugetlb_pool";
    case StepKind::kKsmScan:
      return "ksm_scan";
    case StepKind::kKsmMerge:
      return "ksm_merge";
    case StepKind::kFirmwareMap:
      return "firmware_map";
    case StepKind::kMapEdit:
      return "map_edit";
    case StepKind::kRamLimit:
      return "ram_limit";
    case StepKind::kAddressSplit:
      return "address_split";
    case StepKind::kBootReservation:
      return "boot_reservation";
    case StepKind::kZoneBounds:
      return "zone_bounds";
    case StepKind::kZoneManaged:
      return "zone_managed";
    case StepKind::kMinFreeKbytes:
      return "min_free_kbytes";
    case StepKind::kZoneWatermarks:
      return "zone_watermarks";
    case StepKind::kPcpSizes:
      return "pcp_sizes";
    case StepKind::kKsmBreak:
      return "ksm_break";
    case StepKind::kContigRange:
      return "contig_range";
  }
  return "unspecified";
}

std::string FactText(const Fact& fact) {
  const auto bits = static_cast<uint64_t>(fact.number);
  switch (fact.unit) {
    case FactUnit::kNumber:
      return absl::StrCat(fact.name, "=", fact.number);
    case FactUnit::kAddress:
    case FactUnit::kPhysAddress:
    case FactUnit::kBits:
      return absl::StrFormat("%s=0x%x", fact.name, bits);
    case FactUnit::kPfn:
      return absl::StrFormat("%s=pfn 0x%x", fact.name, bits);
    case FactUnit::kPages:
      return absl::StrCat(fact.name, "=", fact.number, fact.number == 1 ? " page" : " pages");
    case FactUnit::kBytes:
      return absl::StrCat(fact.name, "=", fact.number, " B");
    case FactUnit::kText:
      return absl::StrCat(fact.name, "=", fact.text);
    case FactUnit::kTruth:
      return absl::StrCat(fact.name, "=", fact.number != 0 ? "true" : "false");
  }
  return fact.name;
}

std::string ExplanationText(const Explanation& explanation) {
  std::string text;
  for (const ExplanationStep& step : explanation.steps()) {
    absl::StrAppendFormat(&text, "%2d. %-18s %s", step.number, StepKindName(step.kind), step.text);
    const char* separator = "  [";
    for (const Fact& fact : step.facts) {
      absl::StrAppend(&text, separator, FactText(fact));
      separator = ", ";
    }
    absl::StrAppend(&text, step.facts.empty() ? "\n" : "]\n");
  }
  if (explanation.steps_left_out() > 0) {
    absl::StrAppend(&text, "... ", explanation.steps_left_out(), " more steps where the numbers jump: behind the first ",
                    Explanation::kFirstSteps, " at most ", Explanation::kMoreOfAKind, " of a kind are kept\n");
  }
  return text;
}

}  // namespace mmlab
