// Replays recordings of vmalloc and kmap of real kernels: each starts from its first dump and must hand out the same addresses and leave
// the same areas and slots. Recordings: data/kernel/*/*/{vmalloc,kmap}/*.jsonl.gz; with MMLAB_REFERENCE=<folder>, those under
// <folder>/kernel instead.

#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/kernel/kmap.h"
#include "server/kernel/vmalloc.h"

namespace mmlab {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::vector<json> ReadLines(const fs::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  EXPECT_NE(file, nullptr) << path;
  std::string text;
  char buffer[1 << 16];
  for (int got = 0; (got = gzread(file, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<size_t>(got));
  gzclose(file);
  std::vector<json> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) lines.push_back(json::parse(text.substr(at, end - at)));
    at = end + 1;
  }
  return lines;
}

uint64_t Number(const json& hex) { return std::stoull(hex.get<std::string>(), nullptr, 16); }
std::string Hex(uint64_t value) { return absl::StrCat("0x", absl::Hex(value)); }

// One recording; stops at the first difference.
class Replay {
 public:
  virtual ~Replay() = default;
  void Run(const fs::path& path) {
    for (const json& line : ReadLines(path)) {
      if (line.contains("op")) {
        ++operations_;
        if (line["op"] != "skip" && !line.value("skip", false)) Operation(line);
      } else if (line["kind"] == "state") {
        ++dumps_;
        State(line);
      } else {
        Facts(line);
      }
      if (!problem_.empty()) return;
    }
  }
  int64_t operations() const { return operations_; }
  int64_t dumps() const { return dumps_; }
  const std::string& problem() const { return problem_; }

 protected:
  virtual void Facts(const json& line) = 0;
  virtual void State(const json& state) = 0;
  virtual void Operation(const json& op) = 0;

  void Expect(const json& line, absl::string_view key, const json& got) {
    const std::string name(key);
    if (!problem_.empty() || !line.contains(name) || line[name] == got) return;
    problem_ = absl::StrCat(key, " of ", line.dump().substr(0, 300), " answered ", got.dump().substr(0, 300));
    if (got.is_array()) absl::StrAppend(&problem_, " ", json::diff(line[name], got).dump().substr(0, 500));
  }
  void Expect(const std::vector<std::string>& problems) {
    if (!problems.empty()) problem_ = absl::StrJoin(problems, "; ").substr(0, 500);
  }

  Tracer tracer_;
  std::string problem_;

 private:
  int64_t operations_ = 0;
  int64_t dumps_ = 0;
};

class VmallocReplay final : public Replay {
 private:
  void Facts(const json& line) override {
    if (line["kind"] == "header") {
      const bool arm64 = line["arch"] == "arm64";
      config_.last_address = arm64 ? UINT64_MAX : UINT32_MAX;
      config_.word_bytes = arm64 ? 8 : 4;
      config_.ioremap_max_order = arm64 ? 30 : line["flavour"] == "686" ? 22 : 21;
      config_.max_cpus = line["config"]["NR_CPUS"];
      config_.cpus = line["cpus"];
      config_.total_ram = PageCount(line["ram_mb"].get<uint64_t>() << 8);
    } else if (line["kind"] == "facts") {
      config_.start = VirtAddr(Number(line["VMALLOC_START"]));
      config_.end = VirtAddr(Number(line["VMALLOC_END"]));
      vmalloc_ = std::make_unique<Vmalloc>(config_, nullptr, nullptr, tracer_);
      if (line["lazy_max_pages"] != vmalloc_->lazy_max_pages().raw()) problem_ = "another lazy limit";
    }
  }

  void State(const json& state) override {
    if (state["which"] == "initial") Load(state);
    json busy = json::array();
    for (const auto& [start, area] : vmalloc_->areas()) {
      busy.push_back(json::array({Hex(start), Hex(area.end)}));
      if (area.has_vm) busy.back().push_back(area.nr_pages);
    }
    json recorded = json::object();
    recorded["busy"] = json::array();
    for (const json& area : state["busy"]) {  // An area of vm_map_ram() has only its addresses.
      recorded["busy"].push_back(json::array({area[0], area[1]}));
      if (area.size() > 3) recorded["busy"].back().push_back(area[3]);
    }
    Expect(recorded, "busy", busy);
    json lazy = json::array();
    for (const auto& [start, end] : vmalloc_->lazy_ranges()) lazy.push_back(json::array({Hex(start), Hex(end)}));
    Expect(state, "lazy", lazy);
    json free = json::array();
    vmalloc_->free_areas().ForEach([&](FreeAreaTree::Area area) { free.push_back(json::array({Hex(area.start), Hex(area.end)})); });
    Expect(state, "free", free);
    Expect(state, "lazy_pages", vmalloc_->lazy_pages().raw());
    if (state["which"] == "initial") {
      other_pages_ = state["vmalloc_pages"].get<int64_t>() - static_cast<int64_t>(vmalloc_->nr_vmalloc_pages());
    }
    Expect(state, "vmalloc_pages", static_cast<int64_t>(vmalloc_->nr_vmalloc_pages()) + other_pages_);
    std::vector<std::string> problems;
    vmalloc_->CheckInvariants(&problems);
    Expect(problems);
  }

  void Load(const json& state) {
    std::vector<KernelArea> areas;
    for (const json& from : state["busy"]) {
      KernelArea area;
      area.start = Number(from[0]);
      area.end = Number(from[1]);
      area.has_vm = from.size() > 2;
      if (area.has_vm) {
        area.caller = from[2];
        area.nr_pages = from[3];
        area.flags = static_cast<uint32_t>(Number(from[4]));
      }
      areas.push_back(std::move(area));
    }
    std::vector<FreeAreaTree::Area> lazy;
    for (const json& range : state["lazy"]) lazy.push_back({Number(range[0]), Number(range[1])});
    std::map<uint64_t, uint64_t> ends;
    for (const json& range : state["free"]) ends[Number(range[0])] = Number(range[1]);
    std::vector<FreeAreaTree::RecordedNode> tree;
    for (const json& node : state["free_tree_preorder"]) {
      tree.push_back({Number(node[0]), ends[Number(node[0])], node[1] == "r", node[2] == 1, node[3] == 1});
    }
    if (!vmalloc_->Load(areas, lazy, tree)) problem_ = "the initial state contradicts itself";
  }

  SysResult<VmallocOutcome> Perform(const json& op) {
    const std::string name = op["op"];
    const VirtAddr held = op.contains("h") && held_.contains(op["h"]) ? held_[op["h"]].address : VirtAddr();
    const std::vector<Pfn> pages(op.value("pages", size_t{0}), Pfn(1));
    const Bytes bytes(op.value("bytes", uint64_t{0}));
    VmallocRequest request{bytes, 1, VirtAddr(), VirtAddr(), kGfpKernel, 0, ""};
    if (name == "vmalloc" || name == "vzalloc" || name == "vmalloc_32") return vmalloc_->Alloc(request);
    if (name == "vmalloc_user") {
      request.flags = kVmUsermap;
      return vmalloc_->Alloc(request);
    }
    if (name == "vmalloc_range") {
      request.align = op["align"];
      request.start = VirtAddr(Number(op["start"]));
      request.end = VirtAddr(Number(op["end"]));
      request.flags = op.value("flags", 0u);
      return vmalloc_->Alloc(request);
    }
    if (name == "vmap") return vmalloc_->Map(pages, kVmMap, "");
    if (name == "get_vm_area") return vmalloc_->GetArea(bytes, op["flags"], "");
    if (name == "ioremap") return vmalloc_->Ioremap(PhysAddr(Number(op["phys"])), bytes, "");
    if (name == "vm_map_ram") return vmalloc_->MapRam(pages, op.value("cpu", 0));
    if (name == "vfree") return vmalloc_->Free(held);
    if (name == "vunmap" || name == "free_vm_area") return vmalloc_->Unmap(held);
    if (name == "iounmap") return vmalloc_->Iounmap(held);
    if (name == "vm_unmap_ram") return vmalloc_->UnmapRam(held, PageCount(held_[op["h"]].pages));
    if (name == "vm_unmap_aliases") return vmalloc_->UnmapAliases();
    problem_ = absl::StrCat("unknown operation ", name);
    return Errno::kEINVAL;
  }

  void Operation(const json& op) override {
    const SysResult<VmallocOutcome> result = Perform(op);
    if (!result.ok()) {
      Expect(op, "addr", nullptr);
      Expect(op, "lazy", vmalloc_->lazy_pages().raw());
      return;
    }
    const VmallocOutcome& outcome = result.value();
    Expect(op, "addr", Hex(outcome.address.raw()));
    Expect(op, "area", Hex(outcome.area.start.raw()));
    Expect(op, "area_size", outcome.area.length().raw());
    Expect(op, "nr_pages", outcome.nr_pages);
    Expect(op, "lazy", outcome.lazy.raw());
    if (op.contains("lazy_before_purge") != outcome.lazy_before_purge.has_value()) problem_ = "a purge too many or too few: " + op.dump();
    if (outcome.lazy_before_purge) Expect(op, "lazy_before_purge", outcome.lazy_before_purge->raw());
    if (op.contains("h")) held_[op["h"]] = {outcome.address, op.value("pages", uint64_t{0})};
  }

  struct Held {
    VirtAddr address;
    uint64_t pages = 0;
  };
  VmallocConfig config_;
  std::unique_ptr<Vmalloc> vmalloc_;
  std::map<int, Held> held_;
  int64_t other_pages_ = 0;  // Counted, but in no area of the dump.
};

class KmapReplay final : public Replay {
 private:
  void Facts(const json& line) override {
    if (line["kind"] != "header") return;
    // layout.json of the recorded machines.
    const bool pae = line["flavour"] == "686-pae";
    KmapConfig config;
    config.page_offset = VirtAddr(0xc0000000);
    config.max_low_pfn = Pfn(pae ? 0x36ffe : 0x36bfe);
    config.end_pfn = Pfn(0x40000);
    config.pkmap_base = VirtAddr(pae ? 0xff000000 : 0xfec00000);
    config.last_pkmap = pae ? 512 : 1024;
    config.fix_kmap_first = VirtAddr(0xfffbb000);
    config.cpus = line["cpus"];
    kmap_ = std::make_unique<Kmap>(config, nullptr, tracer_);
  }

  void State(const json& state) override {
    if (state["at"] == 0) {
      std::vector<std::pair<uint32_t, Kmap::Slot>> slots;
      for (const json& slot : state["pkmap_count"]) slots.push_back({slot[0], {slot[1], Pfn(slot[2].get<uint64_t>())}});
      if (!kmap_->Load(state["last_pkmap_nr"], slots)) problem_ = "the initial state contradicts itself";
    }
    json counts = json::array();
    for (uint32_t slot = 0; slot < kmap_->slots().size(); ++slot) {
      const Kmap::Slot& at = kmap_->slots()[slot];
      if (at.count != 0) counts.push_back(json::array({slot, at.count, at.frame.raw()}));
    }
    Expect(state, "pkmap_count", counts);
    Expect(state, "last_pkmap_nr", kmap_->last_pkmap_nr());
    Expect(state, "local_idx", kmap_->local(0).size());
    std::vector<std::string> problems;
    kmap_->CheckInvariants(&problems);
    Expect(problems);
  }

  void Operation(const json& op) override {
    const std::string name = op["op"];
    if (name == "alloc") {
      frames_[op["h"]] = Pfn(op["pfn"].get<uint64_t>());
      Expect(op, "highmem", kmap_->IsHigh(frames_[op["h"]]));
    } else if (name == "kmap" || name == "kmap_local") {
      const Pfn frame = frames_.at(op["h"]);
      const SysResult<VirtAddr> address = name == "kmap" ? kmap_->Map(frame) : kmap_->MapLocal(frame, 0);
      Expect(op, "addr", address.ok() ? json(Hex(address.value().raw())) : json(nullptr));
    } else if (name == "kunmap") {
      if (kmap_->Unmap(frames_.at(op["h"])) != Errno::kOk) problem_ = "refused: " + op.dump();
    } else if (name == "kunmap_local") {
      if (kmap_->UnmapLocal(VirtAddr(Number(op["addr"])), 0) != Errno::kOk) problem_ = "refused: " + op.dump();
    } else if (name == "kmap_flush_unused") {
      kmap_->FlushUnused();
    } else if (name != "free") {
      problem_ = absl::StrCat("unknown operation ", name);
    }
  }

  std::unique_ptr<Kmap> kmap_;
  std::map<int, Pfn> frames_;
};

class KernelAddressReplayTest : public testing::TestWithParam<const char*> {};

TEST_P(KernelAddressReplayTest, EveryRecordingGivesTheSameAddresses) {
  const char* reference = std::getenv("MMLAB_REFERENCE");
  const fs::path root = reference != nullptr ? fs::path(reference) / "kernel" : fs::path("tests/conformance/data/kernel");
  std::vector<fs::path> recordings;
  for (const auto& entry : fs::directory_iterator(root / GetParam())) {
    if (entry.path().extension() == ".gz") recordings.push_back(entry.path());
  }
  std::sort(recordings.begin(), recordings.end());
  ASSERT_FALSE(recordings.empty()) << root;
  int64_t operations = 0;
  int64_t dumps = 0;
  size_t same = 0;
  for (const fs::path& path : recordings) {
    std::unique_ptr<Replay> replay;
    if (fs::path(GetParam()).filename() == "kmap") {
      replay = std::make_unique<KmapReplay>();
    } else {
      replay = std::make_unique<VmallocReplay>();
    }
    std::string problem;
    try {
      replay->Run(path);
      problem = replay->problem();
    } catch (const CheckFailure& failure) {
      problem = failure.what();
    }
    operations += replay->operations();
    dumps += replay->dumps();
    same += problem.empty();
    EXPECT_EQ(problem, "") << path << ", operation " << replay->operations();
  }
  std::cout << same << " of " << recordings.size() << " recordings of " << GetParam() << " are the same to the end; " << operations
            << " operations, " << dumps << " dumps\n";
}

INSTANTIATE_TEST_SUITE_P(Machines, KernelAddressReplayTest,
                         testing::Values("686/128M/vmalloc", "686/1G/vmalloc", "686/1G-smp2/vmalloc", "686-pae/128M/vmalloc",
                                         "686-pae/1G/vmalloc", "arm64/128M/vmalloc", "arm64/128M-smp2/vmalloc", "arm64/4G/vmalloc",
                                         "686/1G/kmap", "686-pae/1G/kmap"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return c == '/' || c == '-'; }, '_');
                           return name;
                         });

}  // namespace
}  // namespace mmlab
