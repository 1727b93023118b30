#ifndef MMLAB_SERVER_BASE_EXPLANATION_H_
#define MMLAB_SERVER_BASE_EXPLANATION_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/address.h"
#include "server/base/errno.h"

namespace mmlab {

class EventSink;

// What was decided at one step. The order follows the rooms, top to bottom. Each value's facts are listed with it in
// proto/mmlab/v1/explanation.proto, which has the same values with the same numbers.
enum class StepKind : uint8_t {
  kUnspecified = 0,
  kSystemCallCheck = 1,  // An argument or limit was checked; the errno when it refused.
  kOvercommit = 2,       // Commit charge against the limit.
  kVmaLookup = 3,        // Which VMA holds an address, or why none does.
  kVmaGapSearch = 4,     // Which hole was chosen for a mapping.
  kVmaMerge = 5,         // Merged with a neighbour, or why not.
  kVmaSplit = 6,
  kStackGrowth = 7,
  kPermissionCheck = 8,  // Access against vm_flags.
  kPageTableWalk = 9,    // One step per level: table frame, index, entry, decoded bits.
  kFaultDecision = 10,   // Which kind of fault it was and what was done.
  kSignal = 11,          // Signal, si_code, address.
  kPageTableAlloc = 12,
  kZoneCheck = 13,     // One zone's watermark arithmetic.
  kFrameSource = 14,   // Per-CPU list, free list, split, or fallback that gave the frame.
  kFrameRelease = 15,  // Where a freed frame went, and its merges.
  kAllocationFailure = 16,
  kFileLookup = 17,     // Page cache: found or not.
  kCopyOnWrite = 18,    // Copied or re-used, with the counts that decided.
  kAddressLayout = 19,  // Where exec or mmap_base put something, and from what.
  kRequestZones = 20,   // Which zones a request for pages may use, and how deep into their reserves.
  kCompactionSuitable = 21,
  kCompactionDeferred = 22,  // Not tried, because it failed lately.
  kPagesIsolated = 23,       // What the migrate scanner took.
  kFreePagesIsolated = 24,   // What the free scanner took as places to move to.
  kPageMigrated = 25,
  kPageNotMigrated = 26,
  kCompactionFinished = 27,
  kKcompactdWake = 28,
  kAllocationRetry = 29,  // Whether the allocator tries once more, and by which rule.
  kSlabCacheChoice = 30,  // Which cache serves, and whether a new one was made.
  kSlabObject = 31,       // Which slab an object came from or went back to, and where the slab went.
  kVmapAreaSearch = 40,   // Which free range of the kernel's address space serves an area.
  kVmapPurge = 41,        // Lazily freed ranges become free, and why now.
  kVmapBlock = 42,        // A block of vm_map_ram().
  kKmapSlot = 43,         // Which slot maps a frame of high memory.
  kPercpuArea = 44,       // Which place of the per-CPU allocator serves a request, and which pages come and go.
  kKswapdWake = 50,       // kswapd was woken, with every zone's free pages against its watermarks.
  kKswapdSleep = 51,      // kswapd ended, and what it had freed.
  kDirectReclaim = 52,    // The request reclaimed by itself.
  kScanBalance = 53,      // How many pages of each LRU list are looked at, and by which rule.
  kPageEvicted = 54,
  kPageKept = 55,          // A page was looked at by reclaim and kept, and why.
  kSwapSlot = 56,          // Which slot of which swap area a page gets, or why none.
  kSwapOut = 57,           // A page was written to its slot.
  kSwapIn = 58,            // A page was found in the swap cache or read from its slot, with the neighbours read ahead.
  kWriteback = 59,         // Dirty pages of a file were written, and why now.
  kReadahead = 60,         // How many pages of a file are read together.
  kRefault = 61,           // A page came back after it was evicted: its distance against the size of the working set.
  kTlbFlush = 62,          // Entries of pages that go were taken out of page tables: which TLBs forget them, and in how many flushes.
  kPageReplacement = 65,   // Which page of a bounded process makes room for another, by which policy and why.
  kGenerationAdded = 67,   // MGLRU: page tables were walked and a new youngest generation began, and why now.
  kGenerationScan = 68,    // MGLRU: which kind of pages is taken from, and from which tier on pages are kept.
  kPageSorted = 69,        // MGLRU: a page of the oldest generation is not taken but moves on, and why.
  kOomScore = 70,          // One process's badness when memory is gone, and whether it was chosen.
  kCgroupCharge = 71,      // A charge that a cgroup's limit refuses at first.
  kCgroupReclaim = 72,     // What a cgroup's limit had freed.
  kCgroupThrottle = 73,    // memory.high lets the process sleep, and how long.
  kCgroupProtected = 74,   // A cgroup was passed over by reclaim for memory.min or memory.low.
  kContextSwitch = 125,    // Which page-table base a CPU loads for a task, or that it keeps the one loaded.
  kAsidChoice = 126,       // Which ASID an address space gets, and whether all were used up.
  kPhysicalAccess = 127,   // What answers at a physical address.
  kHugeFault = 90,         // Whether a fault gets a huge page, and why not.
  kHugeSplit = 91,         // A huge page, or an entry that maps one, was split, and why.
  kHugeCollapse = 92,      // Whether a range of small pages became a huge page, and why not.
  kHugetlbPool = 93,       // A hugetlb pool grew, shrank, gave a page or made a reservation, with its counts.
  kKsmScan = 94,           // A page that KSM looked at was left alone, and why.
  kKsmMerge = 95,          // Two pages became one.
  kKsmBreak = 96,          // A merged page was copied, and why.
  kContigRange = 97,       // A range of memory was made one page, or could not be, and why.
  kFirmwareMap = 130,      // A range of the firmware's map after it was sanitised, and what that took.
  kMapEdit = 131,          // A change of the map that the command line asks for.
  kRamLimit = 132,         // How much of the RAM the kernel can address, and what is lost.
  kAddressSplit = 133,     // Where lowmem ends, or the linear map lies, and from what.
  kBootReservation = 134,  // Memory that is taken before the page allocator starts.
  kZoneBounds = 135,       // From where to where a zone goes, and what of that is RAM.
  kZoneManaged = 136,      // What of a zone the page allocator gets, and when.
  kMinFreeKbytes = 137,    // How much is kept free in all, and by which rule.
  kZoneWatermarks = 138,   // A zone's watermarks and its lowmem_reserve, and from what.
  kPcpSizes = 139,         // What CPUs keep of a zone to themselves, of pages and of counters.
};

// In what a fact's number is counted.
enum class FactUnit : uint8_t {
  kNumber = 0,
  kAddress = 1,
  kPhysAddress = 2,
  kPfn = 3,
  kPages = 4,
  kBytes = 5,
  kBits = 6,
  kText = 7,
  kTruth = 8
};

struct Fact {
  std::string name;
  FactUnit unit = FactUnit::kNumber;
  int64_t number = 0;  // For addresses and bits: the same 64 bits, unsigned. For kTruth: 0 or 1.
  std::string text;    // For kText only.
};

struct ExplanationStep {
  StepKind kind = StepKind::kUnspecified;
  uint64_t number = 0;  // Which step of the operation it was, from 1 on; where it jumps, steps were left out.
  std::string text;     // One sentence, without trailing period; what happened, in the kernel's terms.
  std::vector<Fact> facts;

  ExplanationStep& Number(absl::string_view name, int64_t value) { return Add(name, FactUnit::kNumber, value); }
  ExplanationStep& Address(absl::string_view name, VirtAddr a) { return Add(name, FactUnit::kAddress, static_cast<int64_t>(a.raw())); }
  ExplanationStep& Physical(absl::string_view name, PhysAddr a) { return Add(name, FactUnit::kPhysAddress, static_cast<int64_t>(a.raw())); }
  ExplanationStep& Frame(absl::string_view name, Pfn pfn) { return Add(name, FactUnit::kPfn, static_cast<int64_t>(pfn.raw())); }
  ExplanationStep& Pages(absl::string_view name, int64_t pages) { return Add(name, FactUnit::kPages, pages); }
  ExplanationStep& Pages(absl::string_view name, PageCount pages) { return Pages(name, static_cast<int64_t>(pages.raw())); }
  ExplanationStep& Size(absl::string_view name, Bytes b) { return Add(name, FactUnit::kBytes, static_cast<int64_t>(b.raw())); }
  ExplanationStep& Bits(absl::string_view name, uint64_t bits) { return Add(name, FactUnit::kBits, static_cast<int64_t>(bits)); }
  ExplanationStep& Truth(absl::string_view name, bool value) { return Add(name, FactUnit::kTruth, value ? 1 : 0); }
  ExplanationStep& Text(absl::string_view name, absl::string_view value);
  ExplanationStep& Error(Errno e) { return Text("errno", ErrnoName(e)); }

 private:
  ExplanationStep& Add(absl::string_view name, FactUnit unit, int64_t value);
};

// The chain of decisions behind one operation, in the order in which they were taken.
class Explanation {
 public:
  // Of a long operation (a batch of a million faults) the first steps are kept, and behind them so many of each kind, so that what is rare
  // is there however late it comes: who was killed after ten thousand faults. Of the others only the count grows.
  static constexpr size_t kFirstSteps = 1000;
  static constexpr uint16_t kMoreOfAKind = 50;
  static constexpr size_t kMaxSteps = 2000;

  ExplanationStep& Add(StepKind kind, absl::string_view text);

  const std::vector<ExplanationStep>& steps() const { return steps_; }
  uint64_t steps_left_out() const { return steps_left_out_; }

 private:
  bool Keeps(StepKind kind);

  std::vector<ExplanationStep> steps_;
  std::array<uint16_t, 256> more_{};  // By kind: kept behind the first steps.
  ExplanationStep overflow_;
  uint64_t steps_left_out_ = 0;
};

absl::string_view StepKindName(StepKind kind);  // "vma_lookup"

// "name=value" with the unit's notation: addresses and bits in hex, "12 pages", "4096 B", "true".
std::string FactText(const Fact& fact);

// The whole chain as lines of text, one a step, for a terminal.
std::string ExplanationText(const Explanation& explanation);

// Held by every part of a machine; tells it whether somebody wants to know why, or watches what happens. Not asking costs one test of a
// pointer:
//   if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kVmaLookup, "no VMA ends above it").Address("address", a);
class Tracer {
 public:
  Explanation* explanation() const { return explanation_; }
  EventSink* events() const { return events_; }  // event.h
  // Whether either is there: one test for code that has a quick way for nobody.
  bool observed() const { return observed_; }

  void Explain(Explanation* explanation) {
    explanation_ = explanation;
    observed_ = explanation_ != nullptr || events_ != nullptr;
  }
  void Watch(EventSink* events) {
    events_ = events;
    observed_ = explanation_ != nullptr || events_ != nullptr;
  }

 private:
  Explanation* explanation_ = nullptr;
  EventSink* events_ = nullptr;
  bool observed_ = false;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_BASE_EXPLANATION_H_
