// Replays recordings of the slab allocator of real kernels: geometry and merging of every cache, kmalloc classes, and which slab each
// object comes from. Recordings: data/kernel/*/*/slab/*.jsonl.gz; with MMLAB_REFERENCE=<folder>, those under <folder>/kernel instead.

#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/kernel/percpu_counter.h"
#include "server/kernel/slub.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::string ReadAll(const fs::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  EXPECT_NE(file, nullptr) << path;
  std::string text;
  char buffer[1 << 16];
  for (int got = 0; (got = gzread(file, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<size_t>(got));
  gzclose(file);
  return text;
}

uint32_t Hex(const json& text) { return static_cast<uint32_t>(std::stoul(text.get<std::string>(), nullptr, 16)); }

// gfp_t of the recorded kernels, for the bits that caches add to requests.
uint32_t RecordedGfp(Gfp gfp) {
  return ((gfp & kGfpZoneDma) != 0 ? 0x1u : 0) | ((gfp & kGfpZoneDma32) != 0 ? 0x4u : 0) | ((gfp & kGfpReclaimable) != 0 ? 0x10u : 0) |
         ((gfp & kGfpComp) != 0 ? 0x40000u : 0);
}

// One recording performed on a slab allocator of its own; ends at the first answer that differs.
class SlabReplay {
 public:
  explicit SlabReplay(const fs::path& path) {
    const std::string text = ReadAll(path);
    int line_number = 0;
    for (size_t at = 0; at < text.size() && problem_.empty();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const json line = json::parse(text.substr(at, end - at));
      at = end + 1;
      ++line_number;
      Perform(line);
      if (!problem_.empty()) problem_ = absl::StrCat("line ", line_number, ": ", problem_);
    }
    std::vector<std::string> broken;
    slub_->CheckInvariants(&broken);
    memory_->CheckInvariants(&broken);
    if (problem_.empty() && !broken.empty()) problem_ = broken.front();
  }

  const std::string& problem() const { return problem_; }
  int64_t operations() const { return operations_; }

 private:
  void Perform(const json& line) {
    const std::string kind = line.value("kind", "");
    if (kind == "header") return Start(line);
    if (kind == "caches") return AdoptCaches(line["list"]);
    if (kind == "state") return CompareState(line);
    if (!line.contains("op") || line.value("skip", false)) return;
    ++operations_;
    const std::string op = line["op"];
    if (op == "cache_create") return Create(line);
    if (op == "cache_destroy")
      return Expect("destroy", 0, static_cast<int>(slub_->DestroyCache(CacheOf(line), slub_->View(CacheOf(line)).name)));
    if (op == "cache_shrink") return Shrink(line);
    if (op == "kmalloc") return Kmalloc(line);
    if (op == "obj_alloc" || op == "obj_free") return OneObject(line, op == "obj_alloc");
    if (op == "obj_alloc_bulk" || op == "obj_free_bulk") return Bulk(line, op == "obj_alloc_bulk");
    if (op == "counter_init" || op == "counter_add" || op == "counter_set") return Counter(line, op);
    problem_ = absl::StrCat("unknown operation ", op);
  }

  void Start(const json& header) {
    const std::string flavour = header["flavour"];
    const LayoutKind kind = flavour == "686" ? LayoutKind::kX86_32 : flavour == "686-pae" ? LayoutKind::kX86_32Pae : LayoutKind::kArm64;
    cpus_ = header["cpus"];
    memory_ = MakeTestMemory(1 << 15, tracer_);
    slub_ = std::make_unique<Slub>(SlabPlatformOf(GetLayout(kind), cpus_), 0xc0000000, *memory_, tracer_, 1);
    slub_->AddBootCaches(kind);
  }

  void AdoptCaches(const json& list) {
    // What the allocator makes for itself must be what the kernel has made.
    for (const json& cache : list) {
      const std::optional<SlabCacheId> own = slub_->Find(cache["name"].get<std::string>());
      if (own.has_value()) {
        CompareCache(cache, slub_->View(*own));
        if (!problem_.empty()) problem_ = absl::StrCat(cache["name"].get<std::string>(), ": ", problem_);
      }
    }
    slub_->ForgetCaches();
    for (auto cache = list.rbegin(); cache != list.rend(); ++cache) {
      const SlabCacheRequest request{(*cache)["name"], (*cache)["object_size"], (*cache)["align"], 0,
                                     (*cache)["ctor"], (*cache)["usersize"]};
      SlabGeometry g;
      g.object_size = (*cache)["object_size"];
      g.size = (*cache)["size"];
      g.align = (*cache)["align"];
      g.inuse = (*cache)["inuse"];
      g.free_ptr_offset = (*cache)["free_ptr_offset"];
      g.flags = Hex((*cache)["flags"]);
      g.order = (*cache)["order"];
      g.objects = (*cache)["objs_per_slab"];
      g.min_order = (*cache)["min_order"];
      g.min_objects = (*cache)["min_objs"];
      g.min_partial = (*cache)["min_partial"];
      g.cpu_partial = (*cache)["cpu_partial"];
      g.cpu_partial_slabs = (*cache)["cpu_partial_slabs"];
      slub_->AdoptCache(request, g, (*cache)["refcount"]);
    }
  }

  template <typename T>
  void Expect(absl::string_view what, const T& recorded, const T& answered) {
    if (problem_.empty() && recorded != answered) problem_ = absl::StrCat(what, ": recorded ", recorded, ", answered ", answered);
  }

  void CompareCache(const json& line, const SlabCacheView& view) {
    const SlabGeometry& g = view.geometry;
    const std::pair<const char*, int64_t> numbers[] = {{"object_size", g.object_size},
                                                       {"size", g.size},
                                                       {"align", g.align},
                                                       {"inuse", g.inuse},
                                                       {"free_ptr_offset", g.free_ptr_offset},
                                                       {"order", g.order},
                                                       {"objs_per_slab", g.objects},
                                                       {"min_order", g.min_order},
                                                       {"min_objs", g.min_objects},
                                                       {"min_partial", g.min_partial},
                                                       {"cpu_partial", g.cpu_partial},
                                                       {"cpu_partial_slabs", g.cpu_partial_slabs},
                                                       {"refcount", view.refcount},
                                                       {"usersize", view.usersize},
                                                       {"ctor", view.constructor}};
    for (const auto& [key, value] : numbers) {
      Expect(key, line[key].is_boolean() ? int64_t{line[key].get<bool>()} : line[key].get<int64_t>(), value);
    }
    Expect("flags", line["flags"].get<std::string>(), absl::StrFormat("0x%x", g.flags));
  }

  void Create(const json& line) {
    const SlabCacheRequest request{line["asked_name"],       line["asked_size"], line["asked_align"],
                                   Hex(line["asked_flags"]), line["asked_ctor"], 0};
    const size_t before = slub_->Caches().size();
    const SysResult<SlabCacheId> id = slub_->CreateCache(request);
    if (!id.ok()) {
      problem_ = "refused to create a cache";
      return;
    }
    Expect("merged", line["merged"].get<bool>(), slub_->Caches().size() == before);
    const SlabCacheView view = slub_->View(id.value());
    Expect("name", line["name"].get<std::string>(), view.name);
    CompareCache(line, view);
    if (!line["merged"].get<bool>()) {
      Expect("allocflags", line["allocflags"].get<std::string>(), absl::StrFormat("0x%x", RecordedGfp(view.geometry.alloc_gfp)));
    }
    caches_[line["c"].get<int>()] = id.value();
  }

  SlabCacheId CacheOf(const json& line) { return caches_.at(line["c"].get<int>()); }

  void CompareLists(const json& line) {
    const SlabCacheView view = slub_->View(CacheOf(line));
    Expect<uint64_t>("nr_slabs", line["nr_slabs"], view.slabs);
    Expect<uint64_t>("node_partial", line["node_partial"], view.node_partial);
    Expect<uint64_t>("cpu_partial_slabs", line["cpu_partial_slabs"], slub_->Cpu(CacheOf(line)).partial_slabs);
    const Slub::CpuView cpu = slub_->Cpu(CacheOf(line));
    if (line.contains("cpu_slab_pfn") && line["cpu_slab_pfn"].is_number()) {
      SameSlab(line["cpu_slab_pfn"], cpu.slab.value_or(Pfn(0)), false);
    } else if (!line.contains("ret")) {
      Expect("no slab of the CPU", true, !cpu.slab.has_value());
    }
  }

  // Recorded slabs are known by their first page; which one of ours stands for which is settled when a slab is new.
  void SameSlab(uint64_t recorded, Pfn answered, bool fresh) {
    const auto known = slab_names_.find(recorded);
    if (fresh || known == slab_names_.end()) {
      std::erase_if(slab_names_, [&](const auto& entry) { return entry.second == answered.raw(); });
      slab_names_[recorded] = answered.raw();
      return;
    }
    Expect("slab", known->second, answered.raw());
  }

  void Shrink(const json& line) {
    Expect("ret", line["ret"].get<int>(), slub_->Shrink(CacheOf(line)) ? 1 : 0);
    CompareLists(line);
  }

  void Kmalloc(const json& line) {
    const std::string gfp_class = line["gfp"];
    const Gfp gfp = kGfpKernel | (gfp_class == "SLEEP_DMA" ? kGfpZoneDma : 0) | (gfp_class == "SLEEP_RECLAIMABLE" ? kGfpReclaimable : 0) |
                    (gfp_class == "SLEEP_ACCOUNT" ? kGfpAccount : 0);
    const uint64_t bytes = line["bytes"];
    if (line.contains("result")) return Expect("zero", Slub::kZeroSizePtr, slub_->Kmalloc(bytes, gfp)->raw());
    const bool whole_pages = line["cache"].is_null();
    const std::optional<VirtAddr> address = slub_->Kmalloc(bytes, gfp & ~kGfpZoneDma);
    if (!address.has_value()) {
      problem_ = "no memory";
      return;
    }
    Expect("ksize", line["ksize"].get<uint64_t>(), slub_->Ksize(*address).value());
    const std::optional<SlabCacheId> cache = slub_->KmallocCache(bytes, gfp);
    Expect("whole pages", whole_pages, !cache.has_value());
    if (cache.has_value() && !whole_pages) {
      const SlabCacheView view = slub_->View(*cache);
      Expect("cache", line["cache"].get<std::string>(), view.name);
      Expect<uint32_t>("cache_size", line["cache_size"], view.geometry.size);
      Expect<int>("slab_order", line["slab_order"], view.geometry.order);
    }
    Expect("kfree", 0, static_cast<int>(slub_->Kfree(*address)));
  }

  void OneObject(const json& line, bool alloc) {
    const int handle = line["h"];
    const SlabCacheId cache = CacheOf(line);
    if (alloc) {
      const std::optional<SlabObject> object = slub_->AllocObject(cache, kGfpKernel);
      if (!object.has_value()) {
        problem_ = "no memory";
        return;
      }
      objects_[handle] = *object;
    }
    const SlabObject object = objects_.at(handle);
    SameSlab(line["slab_pfn"], slub_->SlabOf(object).pfn, line.value("new_slab", false));
    if (!alloc) {
      slub_->FreeObject(cache, object);
      objects_.erase(handle);
    }
    CompareLists(line);
  }

  void Bulk(const json& line, bool alloc) {
    const int handle = line["h"];
    const SlabCacheId cache = CacheOf(line);
    std::vector<SlabObject> objects(line["n"].get<size_t>());
    if (alloc) {
      Expect("bulk", true, slub_->AllocBulk(cache, kGfpKernel, absl::MakeSpan(objects)));
      for (size_t i = 0; i < objects.size(); ++i) {
        objects_[handle + static_cast<int>(i)] = objects[i];
        SameSlab(line["objs"][i]["slab_pfn"], slub_->SlabOf(objects[i]).pfn, false);
      }
    } else {
      for (size_t i = 0; i < objects.size(); ++i) objects[i] = objects_.at(handle + static_cast<int>(i));
      slub_->FreeBulk(cache, objects);
    }
    CompareLists(line);
  }

  void CompareState(const json& line) {
    const auto known = caches_.find(line["cache"].get<int>());
    if (known == caches_.end() || !slub_->Has(known->second)) return;
    ++operations_;
    const SlabCacheView view = slub_->View(known->second);
    const Slub::CpuView cpu = slub_->Cpu(known->second);
    Expect<uint64_t>("nr_slabs", line["nr_slabs"], view.slabs);
    Expect<uint64_t>("total_objects", line["total_objects"], view.total_objects);
    Expect<uint64_t>("node_partial", line["node_partial"].size(), view.node_partial);
    Expect<uint64_t>("cpu_partial", line["cpu_partial"].size(), cpu.partial_slabs);
    if (line["cpu_slab"].is_object() && line["cpu_slab"].contains("free_on_cpu")) {
      Expect<uint32_t>("free_on_cpu", line["cpu_slab"]["free_on_cpu"], cpu.free_on_cpu);
      Expect<uint32_t>("free_on_slab", line["cpu_slab"]["free_on_slab"], cpu.free_on_slab);
    }
  }

  void Counter(const json& line, const std::string& op) {
    const int handle = line["h"];
    if (op == "counter_init") {
      counters_.insert_or_assign(handle, PercpuCounter(line["value"], cpus_));
      Expect<int32_t>("default_batch", line["default_batch"], PercpuCounter::DefaultBatch(cpus_));
      return;
    }
    PercpuCounter& counter = counters_.at(handle);
    if (op == "counter_set") {
      counter.Set(line["value"]);
    } else {
      counter.Add(0, line["amount"], line["batch"]);
      Expect<int64_t>("sum", line["sum"], counter.Sum());
      Expect<int64_t>("read_positive", line["read_positive"], counter.ReadPositive());
    }
    Expect<int64_t>("count", line["count"], counter.count());
    Expect<int32_t>("local", line["local"], counter.local(0));
  }

  Tracer tracer_;
  int cpus_ = 1;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<Slub> slub_;
  std::map<int, SlabCacheId> caches_;
  std::map<int, SlabObject> objects_;
  std::map<int, PercpuCounter> counters_;
  std::map<uint64_t, uint64_t> slab_names_;
  int64_t operations_ = 0;
  std::string problem_;
};

class SlabReplayTest : public testing::TestWithParam<const char*> {};

TEST_P(SlabReplayTest, EveryRecordingGivesTheSameCachesAndSlabs) {
  const char* reference = std::getenv("MMLAB_REFERENCE");
  const fs::path root = reference != nullptr ? fs::path(reference) / "kernel" : fs::path("tests/conformance/data/kernel");
  std::vector<fs::path> recordings;
  for (const auto& entry : fs::directory_iterator(root / GetParam() / "slab")) {
    if (entry.path().extension() == ".gz") recordings.push_back(entry.path());
  }
  std::sort(recordings.begin(), recordings.end());
  ASSERT_FALSE(recordings.empty()) << root;
  int64_t operations = 0;
  size_t same = 0;
  for (const fs::path& path : recordings) {
    const SlabReplay replay(path);
    operations += replay.operations();
    same += replay.problem().empty();
    EXPECT_EQ(replay.problem(), "") << path;
  }
  std::cout << same << " of " << recordings.size() << " recordings of " << GetParam() << " are the same to the end; " << operations
            << " operations and dumps\n";
}

INSTANTIATE_TEST_SUITE_P(Machines, SlabReplayTest,
                         testing::Values("686/128M", "686/1G", "686/1G-smp2", "686-pae/128M", "686-pae/1G", "arm64/128M", "arm64/128M-smp2",
                                         "arm64/4G"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return c == '/' || c == '-'; }, '_');
                           return name;
                         });

}  // namespace
}  // namespace mmlab
