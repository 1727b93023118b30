#include "client/replay/kernel/buddy_dump.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kTypeLetters = "UMRHCI";
constexpr uint32_t kMostFrames = 1u << 24;  // 64 GiB: more than any machine that was recorded.
constexpr int kMostCpus = 64;

// A letter's migrate type. Throws std::out_of_range.
int TypeOf(char letter) {
  const size_t type = kTypeLetters.find(letter);
  if (type == absl::string_view::npos) throw std::out_of_range(absl::StrCat("migrate type ", std::string(1, letter)));
  return static_cast<int>(type);
}

// The order that a key of lists begins with: "10U". Throws std::invalid_argument, std::out_of_range.
int OrderOf(const std::string& key) {
  const int order = std::stoi(key);
  if (order < 0 || order > kMaxOrder) throw std::out_of_range(absl::StrCat("order ", order));
  return order;
}

// "3M" -> list index; "9N" is the list of large blocks of all types but movable.
size_t PcpListOf(const std::string& key) {
  const int order = OrderOf(key);
  const char letter = key.back();
  if (order > kCostlyOrder) return static_cast<size_t>(kPcpHugeList) + (letter == 'M' ? 1 : 0);
  const int type = TypeOf(letter);
  if (type >= kMigratePcpTypes) throw std::out_of_range(absl::StrCat("per-CPU list ", key));
  return static_cast<size_t>(order) * kMigratePcpTypes + static_cast<size_t>(type);
}

// The letter of a per-CPU list, and of the type that its pages remember unless they are odd.
char PcpLetter(int index) {
  if (index >= kPcpHugeList) return index == kPcpHugeList ? 'N' : 'M';
  return kTypeLetters[static_cast<size_t>(index % kMigratePcpTypes)];
}

RecordedPcp PcpFrom(const Json& from, RecordedZone& zone) {
  RecordedPcp pcp;
  pcp.count = from.at("count");
  pcp.high = from.at("high");
  pcp.batch = from.at("batch");
  pcp.free_factor = from.at("free_factor");
  for (const auto& [key, list] : from.at("lists").items()) pcp.lists[PcpListOf(key)] = list.get<std::vector<uint32_t>>();
  for (const Json& odd : from.value("odd_types", Json::array())) {
    zone.remembered_types[odd.at(0)] = static_cast<uint8_t>(TypeOf(odd.at(1).get_ref<const std::string&>().at(0)));
  }
  return pcp;
}

void ListsFrom(const Json& from, RecordedZone& zone) {
  for (const auto& [key, list] : from.at("free").items()) {
    zone.free[static_cast<size_t>(OrderOf(key))][static_cast<size_t>(TypeOf(key.back()))] = list.get<std::vector<uint32_t>>();
  }
  for (size_t cpu = 0; cpu < from.at("pcp").size(); ++cpu) {
    zone.pcp.push_back(PcpFrom(from["pcp"][cpu], zone));
    zone.pcp.back().free_diff = from.at("nr_free_diff").at(cpu);
    if (from.contains("nr_free_cma_diff")) zone.pcp.back().cma_diff = from["nr_free_cma_diff"].at(cpu);
  }
  for (const char letter : from.at("blocks").get_ref<const std::string&>()) {
    zone.pageblock_types.push_back(static_cast<uint8_t>(TypeOf(letter)));
  }
  for (const Json& range : from.at("lru_or_movable")) zone.movable.emplace_back(range.at(0), range.at(1));
}

RecordedZone ZoneFrom(const Json& from) {
  RecordedZone zone;
  zone.index = from.at("zone_idx");
  zone.start_pfn = from.at("start_pfn");
  zone.spanned = from.at("spanned");
  zone.present = from.at("present");
  zone.managed = from.at("managed");
  zone.cma_pages = from.value("cma_pages", 0u);
  zone.wmark_min = from.at("wmark_min");
  zone.wmark_low = from.at("wmark_low");
  zone.wmark_high = from.at("wmark_high");
  zone.watermark_boost = from.at("watermark_boost");
  const auto reserve = from.at("lowmem_reserve").get<std::vector<uint64_t>>();
  std::copy_n(reserve.begin(), std::min<size_t>(reserve.size(), kZones), zone.lowmem_reserve.begin());
  zone.percpu_drift_mark = from.at("percpu_drift_mark");
  zone.pageset_high = from.at("pageset_high");
  zone.pageset_batch = from.at("pageset_batch");
  zone.stat_threshold = from.at("stat_threshold");
  zone.nr_reserved_highatomic = from.at("nr_reserved_highatomic");
  zone.flags = from.at("zone_flags");
  zone.nr_free_pages = from.at("nr_free_pages");
  zone.nr_free_cma = from.value("nr_free_cma_pages", int64_t{0});
  ListsFrom(from, zone);
  return zone;
}

// Blocks lie in their zone, aligned, each frame in one of them.
absl::Status CheckBlocks(const RecordedZone& zone, const std::vector<uint32_t>& blocks, int order, std::set<uint32_t>& taken) {
  for (const uint32_t pfn : blocks) {
    const uint32_t pages = 1u << order;
    const bool inside = pfn >= zone.start_pfn && pfn - zone.start_pfn + pages <= zone.spanned;
    if (!inside || pfn % pages != 0) return absl::InvalidArgumentError(absl::StrCat("no block of order ", order, " starts at frame ", pfn));
    for (uint32_t i = 0; i < pages; ++i) {
      if (!taken.insert(pfn + i).second) return absl::InvalidArgumentError(absl::StrCat("frame ", pfn + i, " is on two lists"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckZone(const RecordedZone& zone, const RecordedState& state) {
  const uint64_t end = uint64_t{zone.start_pfn} + zone.spanned;
  if (zone.index < 0 || zone.index >= static_cast<int>(ZoneTypesOf(state.zones).size()) || zone.spanned == 0 || end > kMostFrames) {
    return absl::InvalidArgumentError(absl::StrCat("zone ", zone.index, " with ", zone.spanned, " frames"));
  }
  const uint64_t block = uint64_t{1} << state.pageblock_order;
  if (zone.pageblock_types.size() > (end + block - 1) / block - zone.start_pfn / block ||
      zone.pcp.size() != static_cast<size_t>(state.cpus)) {
    return absl::InvalidArgumentError(absl::StrCat("zone ", zone.index, " with so many page blocks or CPUs"));
  }
  for (const auto& [first, last] : zone.movable) {
    if (first < zone.start_pfn || first > last || last > end) return absl::InvalidArgumentError("movable frames outside their zone");
  }
  std::set<uint32_t> taken;
  for (int order = 0; order <= kMaxOrder; ++order) {
    for (const auto& list : zone.free[static_cast<size_t>(order)]) MMLAB_RETURN_IF_ERROR(CheckBlocks(zone, list, order, taken));
  }
  for (const RecordedPcp& pcp : zone.pcp) {
    if (pcp.batch == 0 || pcp.batch > kMostFrames || pcp.free_factor > 5) return absl::InvalidArgumentError("per-CPU batch out of range");
    for (int index = 0; index < kPcpLists; ++index) {
      const int order = index >= kPcpHugeList ? state.pageblock_order : index / kMigratePcpTypes;
      MMLAB_RETURN_IF_ERROR(CheckBlocks(zone, pcp.lists[static_cast<size_t>(index)], order, taken));
    }
  }
  return absl::OkStatus();
}

// One CPU's lists. Pages that remember another type than their list's are odd; of large blocks all are listed.
Json DumpPcp(const BuddyMemory& memory, const PerCpuPages& pcp, size_t cpu) {
  Json dump = {{"cpu", cpu}, {"count", pcp.count}, {"high", pcp.high}, {"batch", pcp.batch}, {"free_factor", pcp.free_factor}};
  Json lists = Json::object();
  Json odd = Json::array();
  for (int index = 0; index < kPcpLists; ++index) {
    const int order = index >= kPcpHugeList ? memory.pageblock_order() : index / kMigratePcpTypes;
    const char letter = PcpLetter(index);
    for (uint32_t pfn = pcp.lists[static_cast<size_t>(index)].head; pfn != kNoFrame;) {
      const Frame frame = memory.PeekFrame(Pfn(pfn));
      lists[absl::StrCat(order, std::string(1, letter))].push_back(pfn);
      const char remembered = kTypeLetters[frame.migrate_type];
      if (index >= kPcpHugeList || remembered != letter) odd.push_back({pfn, std::string(1, remembered)});
      pfn = frame.next;
    }
  }
  dump["lists"] = std::move(lists);
  if (!odd.empty()) dump["odd_types"] = std::move(odd);
  return dump;
}

}  // namespace

absl::StatusOr<RecordedState> BuddyStateFrom(const Json& header, const Json& dump) {
  RecordedState recorded;
  recorded.zones = header.at("arch") == "arm64" ? ZoneSet::kArm64 : ZoneSet::kX86_32;
  recorded.pageblock_order = header.at("pageblock_order");
  recorded.cpus = header.at("cpus");
  recorded.current_cpu = dump.at("cpu");
  if (recorded.pageblock_order < 9 || recorded.pageblock_order > kMaxOrder || recorded.cpus < 1 || recorded.cpus > kMostCpus ||
      recorded.current_cpu < 0 || recorded.current_cpu >= recorded.cpus) {
    return absl::InvalidArgumentError("pageblock_order, cpus or cpu out of range");
  }
  uint64_t end = 0;
  for (const Json& zone : dump.at("zones")) {
    recorded.zone.push_back(ZoneFrom(zone));
    MMLAB_RETURN_IF_ERROR(CheckZone(recorded.zone.back(), recorded));
    if (recorded.zone.back().start_pfn < end) return absl::InvalidArgumentError("zones overlap");
    end = uint64_t{recorded.zone.back().start_pfn} + recorded.zone.back().spanned;
  }
  return recorded;
}

Json DumpZone(const BuddyMemory& memory, const Zone& zone) {
  Json dump = {{"zone", std::string(zone.name())}, {"zone_idx", zone.index}, {"watermark_boost", zone.watermark_boost}};
  dump["nr_reserved_highatomic"] = zone.nr_reserved_highatomic;
  dump["zone_flags"] = zone.flags;
  dump["nr_free_pages"] = zone.stats[static_cast<size_t>(ZoneStat::kNrFreePages)];
  dump["free"] = Json::object();
  for (int order = 0; order <= kMaxOrder; ++order) {
    dump["nr_free"].push_back(zone.free_area[static_cast<size_t>(order)].nr_free);
    for (int type = 0; type < kMigrateTypes; ++type) {
      const std::string key = absl::StrCat(order, kTypeLetters.substr(static_cast<size_t>(type), 1));
      memory.lists().ForEach(zone, order, type, [&](uint32_t pfn) { dump["free"][key].push_back(pfn); });
    }
  }
  dump["pcp"] = Json::array();
  for (size_t cpu = 0; cpu < zone.pcp.size(); ++cpu) {
    dump["pcp"].push_back(DumpPcp(memory, zone.pcp[cpu], cpu));
    dump["nr_free_diff"].push_back(zone.pcp[cpu].free_diff);
  }
  std::string blocks;
  const uint32_t pages = 1u << memory.pageblock_order();
  for (uint32_t pfn = zone.start_pfn & ~(pages - 1); pfn < zone.end_pfn(); pfn += pages) {
    blocks += kTypeLetters[static_cast<size_t>(memory.PageblockTypeOf(Pfn(std::max(pfn, zone.start_pfn))))];
  }
  dump["blocks"] = blocks;
  return dump;
}

}  // namespace mmlab
