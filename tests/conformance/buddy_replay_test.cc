// Replays recordings of the page allocator of real kernels: each starts from the first dump and must hand out the same frames and leave
// the same lists. Recordings: data/kernel/*/*/buddy/*.jsonl.gz; with MMLAB_REFERENCE=<folder>, those under <folder>/kernel instead.

#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr absl::string_view kTypeLetters = "UMRHCI";

std::vector<std::string> ReadLines(const fs::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  EXPECT_NE(file, nullptr) << path;
  std::string text;
  char buffer[1 << 16];
  for (int got = 0; (got = gzread(file, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<size_t>(got));
  gzclose(file);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

Gfp GfpOf(const std::string& name) {
  struct Class {
    const char* name;
    Gfp gfp;
  };
  // The recordings take the direct reclaim bit out of every class.
  static constexpr Gfp kKernel = kGfpKernel & ~kGfpDirectReclaim;
  static constexpr Gfp kUser = kGfpUser & ~kGfpDirectReclaim;
  static constexpr Class kClasses[] = {
      {"KERNEL", kKernel},
      {"RECLAIMABLE", kKernel | kGfpReclaimable},
      {"ATOMIC", kGfpAtomic},
      {"NOWAIT", kGfpNowait},
      {"DMA", kKernel | kGfpZoneDma},
      {"DMA32", kKernel | kGfpZoneDma32},
      {"USER", kUser},
      {"USER_MOVABLE", kUser | kGfpMovable},
      {"HIGHUSER", kUser | kGfpZoneHighmem},
      {"HIGHUSER_MOVABLE", kUser | kGfpZoneHighmem | kGfpMovable},
      {"MEMALLOC", kKernel | kGfpMemalloc},
  };
  for (const Class& c : kClasses) {
    if (name == c.name) return c.gfp;
  }
  ADD_FAILURE() << "unknown class " << name;
  return 0;
}

// "3M" -> list index; "9N" is the list of large blocks of all types but movable.
int PcpListOf(const std::string& key) {
  const int order = std::stoi(key);
  const char letter = key.back();
  if (order > kCostlyOrder) return kPcpHugeList + (letter == 'M' ? 1 : 0);
  return order * kMigratePcpTypes + static_cast<int>(kTypeLetters.find(letter));
}

std::string PcpKeyOf(int index, int pageblock_order) {
  if (index >= kPcpHugeList) return absl::StrCat(pageblock_order, index == kPcpHugeList ? "N" : "M");
  return absl::StrCat(index / kMigratePcpTypes, kTypeLetters.substr(static_cast<size_t>(index % kMigratePcpTypes), 1));
}

RecordedPcp PcpFrom(const json& from, RecordedZone& zone) {
  RecordedPcp pcp;
  pcp.count = from["count"];
  pcp.high = from["high"];
  pcp.batch = from["batch"];
  pcp.free_factor = from["free_factor"];
  for (const auto& [key, list] : from["lists"].items()) pcp.lists[static_cast<size_t>(PcpListOf(key))] = list.get<std::vector<uint32_t>>();
  if (from.contains("odd_types")) {
    for (const json& odd : from["odd_types"]) {
      zone.remembered_types[odd[0]] = static_cast<uint8_t>(kTypeLetters.find(odd[1].get<std::string>()[0]));
    }
  }
  return pcp;
}

RecordedZone ZoneFrom(const json& from) {
  RecordedZone zone;
  zone.index = from["zone_idx"];
  zone.start_pfn = from["start_pfn"];
  zone.spanned = from["spanned"];
  zone.present = from["present"];
  zone.managed = from["managed"];
  zone.cma_pages = from.value("cma_pages", 0u);
  zone.wmark_min = from["wmark_min"];
  zone.wmark_low = from["wmark_low"];
  zone.wmark_high = from["wmark_high"];
  zone.watermark_boost = from["watermark_boost"];
  const auto reserve = from["lowmem_reserve"].get<std::vector<uint64_t>>();
  std::copy_n(reserve.begin(), std::min<size_t>(reserve.size(), kZones), zone.lowmem_reserve.begin());
  zone.percpu_drift_mark = from["percpu_drift_mark"];
  zone.pageset_high = from["pageset_high"];
  zone.pageset_batch = from["pageset_batch"];
  zone.stat_threshold = from["stat_threshold"];
  zone.nr_reserved_highatomic = from["nr_reserved_highatomic"];
  zone.flags = from["zone_flags"];
  zone.nr_free_pages = from["nr_free_pages"];
  zone.nr_free_cma = from.value("nr_free_cma_pages", int64_t{0});
  for (const auto& [key, list] : from["free"].items()) {
    zone.free[static_cast<size_t>(std::stoi(key))][kTypeLetters.find(key.back())] = list.get<std::vector<uint32_t>>();
  }
  for (size_t cpu = 0; cpu < from["pcp"].size(); ++cpu) {
    zone.pcp.push_back(PcpFrom(from["pcp"][cpu], zone));
    zone.pcp.back().free_diff = from["nr_free_diff"][cpu];
    if (from.contains("nr_free_cma_diff")) zone.pcp.back().cma_diff = from["nr_free_cma_diff"][cpu];
  }
  for (const char letter : from["blocks"].get<std::string>())
    zone.pageblock_types.push_back(static_cast<uint8_t>(kTypeLetters.find(letter)));
  for (const json& range : from["lru_or_movable"]) zone.movable.emplace_back(range[0], range[1]);
  return zone;
}

RecordedState StateFrom(const json& header, const json& state) {
  RecordedState recorded;
  recorded.zones = header["arch"] == "arm64" ? ZoneSet::kArm64 : ZoneSet::kX86_32;
  recorded.pageblock_order = header["pageblock_order"];
  recorded.cpus = header["cpus"];
  recorded.current_cpu = state["cpu"];
  for (const json& zone : state["zones"]) recorded.zone.push_back(ZoneFrom(zone));
  return recorded;
}

// What a dump of our zone looks like, in the recording's form.
json DumpZone(const BuddyMemory& memory, const Zone& zone) {
  json dump;
  dump["free"] = json::object();
  for (int order = 0; order <= kMaxOrder; ++order) {
    dump["nr_free"].push_back(zone.free_area[static_cast<size_t>(order)].nr_free);
    for (int type = 0; type < kMigrateTypes; ++type) {
      const std::string key = absl::StrCat(order, kTypeLetters.substr(static_cast<size_t>(type), 1));
      memory.lists().ForEach(zone, order, type, [&](uint32_t pfn) { dump["free"][key].push_back(pfn); });
    }
  }
  dump["pcp"] = json::array();
  for (const PerCpuPages& pcp : zone.pcp) {
    json lists = json::object();
    for (int index = 0; index < kPcpLists; ++index) {
      uint32_t pfn = pcp.lists[static_cast<size_t>(index)].head;
      while (pfn != kNoFrame) {
        lists[PcpKeyOf(index, memory.pageblock_order())].push_back(pfn);
        pfn = memory.PeekFrame(Pfn(pfn)).next;
      }
    }
    dump["pcp"].push_back(
        {{"count", pcp.count}, {"high", pcp.high}, {"batch", pcp.batch}, {"free_factor", pcp.free_factor}, {"lists", lists}});
    dump["nr_free_diff"].push_back(pcp.free_diff);
    dump["nr_free_cma_diff"].push_back(pcp.cma_diff);
  }
  std::string blocks;
  const uint32_t pages = 1u << memory.pageblock_order();
  for (uint32_t pfn = zone.start_pfn & ~(pages - 1); pfn < zone.end_pfn(); pfn += pages) {
    blocks += kTypeLetters[static_cast<size_t>(memory.PageblockTypeOf(Pfn(std::max(pfn, zone.start_pfn))))];
  }
  dump["blocks"] = blocks;
  dump["nr_free_pages"] = zone.stats[static_cast<size_t>(ZoneStat::kNrFreePages)];
  dump["nr_free_cma_pages"] = zone.stats[static_cast<size_t>(ZoneStat::kNrFreeCma)];
  dump["nr_reserved_highatomic"] = zone.nr_reserved_highatomic;
  dump["watermark_boost"] = zone.watermark_boost;
  dump["zone_flags"] = zone.flags;
  return dump;
}

class Replay {
 public:
  explicit Replay(const fs::path& path) {
    for (const std::string& line : ReadLines(path)) {
      const json entry = json::parse(line);
      const std::string kind = entry.value("kind", "");
      if (kind == "header") header_ = entry;
      if (kind == "state") State(entry);
      if (entry.contains("op")) Operation(entry);
      if (!problem_.empty()) return;
    }
  }

  int64_t operations() const { return operations_; }
  int64_t dumps() const { return dumps_; }
  const std::string& problem() const { return problem_; }  // Empty: everything was the same.

 private:
  void State(const json& state) {
    ++dumps_;
    if (memory_ == nullptr) memory_ = std::make_unique<BuddyMemory>(StateFrom(header_, state), tracer_);
    for (const json& expected : state["zones"]) {
      const json got = DumpZone(*memory_, memory_->zones()[expected["zone_idx"].get<size_t>()]);
      for (const auto& [key, value] : got.items()) {
        if (expected.contains(key)) Compare(expected, key, value, state["at"]);
      }
    }
    std::vector<std::string> broken;
    memory_->CheckInvariants(&broken);
    if (!broken.empty())
      problem_ = absl::StrCat("invariants at ", state["at"].get<int>(), ": ", absl::StrJoin(broken, "; ").substr(0, 500));
  }

  void Compare(const json& expected, const std::string& key, const json& got, int at) {
    json want = expected[key];
    if (key == "pcp") {
      for (json& pcp : want) pcp.erase("cpu"), pcp.erase("odd_types");
    }
    if (want == got || !problem_.empty()) return;
    problem_ = absl::StrCat("dump at ", at, ", zone ", expected["zone"].get<std::string>(), ", ", key, ": ",
                            json::diff(want, got).dump().substr(0, 600));
  }

  void Expect(const json& op, const json& want, const json& got) {
    if (want != got) problem_ = absl::StrCat("operation ", op.dump().substr(0, 400), " answered ", got.dump().substr(0, 300));
  }

  static json PfnOrNull(const std::optional<Pfn>& pfn) { return pfn ? json(pfn->raw()) : json(nullptr); }

  void Operation(const json& op) {
    const std::string name = op["op"];
    if (name == "skip" || op.value("skip", false)) return;
    ++operations_;
    const Pfn pfn(op.contains("pfn") && op["pfn"].is_number() ? op["pfn"].get<uint64_t>() : 0);
    if (name == "alloc") {
      Expect(op, op["pfn"], PfnOrNull(memory_->AllocPages(GfpOf(op["gfp"]), PageOrder(op["order"].get<int>()))));
    } else if (name == "free") {
      memory_->FreePages(pfn, PageOrder(op["order"].get<int>()));
    } else if (name == "alloc_exact") {
      Expect(op, op["pfn"], PfnOrNull(memory_->AllocPagesExact(Bytes(op["bytes"].get<uint64_t>()), GfpOf(op["gfp"]))));
    } else if (name == "free_exact") {
      memory_->FreePagesExact(pfn, Bytes(op["bytes"].get<uint64_t>()));
    } else if (name == "alloc_bulk") {
      std::vector<Pfn> pages(op["n"].get<size_t>());
      const size_t got = memory_->AllocPagesBulk(GfpOf(op["gfp"]), absl::MakeSpan(pages));
      json pfns = json::array();
      for (size_t i = 0; i < got; ++i) pfns.push_back(pages[i].raw());
      Expect(op, op["pfns"], pfns);
    } else if (name == "free_list") {
      std::vector<Pfn> pages;
      for (const json& page : op["pfns"]) pages.emplace_back(page.get<uint64_t>());
      memory_->FreePageList(pages);
    } else if (name == "split") {
      memory_->SplitPage(pfn, PageOrder(op["order"].get<int>()));
    } else if (name == "free_sub") {
      memory_->FreePages(pfn, PageOrder(0));
    } else if (name == "drain") {
      memory_->DrainLocalPages();
    } else {
      problem_ = absl::StrCat("unknown operation ", name);
    }
  }

  json header_;
  Tracer tracer_;
  std::unique_ptr<BuddyMemory> memory_;
  int64_t operations_ = 0;
  int64_t dumps_ = 0;
  std::string problem_;
};

class BuddyReplayTest : public testing::TestWithParam<const char*> {};

TEST_P(BuddyReplayTest, EveryRecordingGivesTheSameFramesAndLists) {
  const char* reference = std::getenv("MMLAB_REFERENCE");
  const fs::path root = reference != nullptr ? fs::path(reference) / "kernel" : fs::path("tests/conformance/data/kernel");
  std::vector<fs::path> recordings;
  for (const auto& entry : fs::directory_iterator(root / GetParam() / "buddy")) {
    if (entry.path().extension() == ".gz") recordings.push_back(entry.path());
  }
  std::sort(recordings.begin(), recordings.end());
  ASSERT_FALSE(recordings.empty()) << root;
  int64_t operations = 0;
  int64_t dumps = 0;
  size_t same = 0;
  for (const fs::path& path : recordings) {
    std::string problem;
    try {
      const Replay replay(path);
      operations += replay.operations();
      dumps += replay.dumps();
      problem = replay.problem();
    } catch (const CheckFailure& failure) {
      problem = failure.what();
    }
    same += problem.empty();
    EXPECT_EQ(problem, "") << path;
  }
  std::cout << same << " of " << recordings.size() << " recordings of " << GetParam() << " are the same to the end; " << operations
            << " operations, " << dumps << " dumps\n";
}

INSTANTIATE_TEST_SUITE_P(Machines, BuddyReplayTest,
                         testing::Values("686/128M", "686/128M-smp2", "686/1G", "686-pae/128M", "686-pae/1G", "arm64/128M",
                                         "arm64/128M-smp2", "arm64/4G", "arm64/4G-cma"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return c == '/' || c == '-'; }, '_');
                           return name;
                         });

}  // namespace
}  // namespace mmlab
