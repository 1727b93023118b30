#include "client/replay/kernel/slab_suite.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kPages = 32768;
constexpr size_t kMaxBulk = size_t{1} << 16;

// gfp_t of the recorded kernels, for the bits that caches add to requests for pages.
struct GfpBit {
  Gfp gfp;
  uint32_t recorded;
};
constexpr GfpBit kGfpBits[] = {{kGfpZoneDma, 0x1}, {kGfpZoneDma32, 0x4}, {kGfpReclaimable, 0x10}, {kGfpComp, 0x40000}};

std::string AllocFlagsText(Gfp gfp) {
  uint32_t recorded = 0;
  for (const GfpBit bit : kGfpBits) recorded |= (gfp & bit.gfp) != 0 ? bit.recorded : 0;
  return absl::StrFormat("0x%x", recorded);
}

uint32_t FromHex(const Json& text) { return static_cast<uint32_t>(std::stoul(text.get<std::string>(), nullptr, 16)); }

Gfp GfpFrom(uint32_t recorded) {
  Gfp gfp = 0;
  for (const GfpBit bit : kGfpBits) gfp |= (recorded & bit.recorded) != 0 ? bit.gfp : 0;
  return gfp;
}

Gfp GfpOfClass(const Json& op) {
  const std::string name = op.at("gfp");
  if (name == "SLEEP") return kGfpKernel;
  if (name == "SLEEP_DMA") return kGfpKernel | kGfpZoneDma;
  if (name == "SLEEP_RECLAIMABLE") return kGfpKernel | kGfpReclaimable;
  if (name == "SLEEP_ACCOUNT") return kGfpKernelAccount;
  throw std::invalid_argument(absl::StrCat("gfp class ", name));
}

std::unique_ptr<BuddyMemory> MakeMemory(bool x86, Tracer& tracer) {
  PhysicalConfig config;
  config.zones = x86 ? ZoneSet::kX86_32 : ZoneSet::kArm64;
  config.ram = {{Pfn(0), Pfn(kPages)}};
  config.reserved = {{{Pfn(0), Pfn(1)}, "zero page"}};
  const Pfn end(kPages);
  const Pfn dma_end = x86 ? Pfn(4096) : end;
  config.zone_end = {dma_end, dma_end, end, end, end};
  return std::make_unique<BuddyMemory>(config, tracer);
}

}  // namespace

struct SlabSuite::Operation {
  absl::string_view name;
  std::vector<absl::string_view> arguments;
  Handler handler;
};

const SlabSuite::Operation* SlabSuite::Find(absl::string_view op) {
  static const std::vector<Operation> kOperations = {
      {"cache_create", {"c", "asked_name", "asked_size", "asked_align", "asked_flags", "asked_ctor"}, &SlabSuite::Create},
      {"cache_destroy", {"c"}, &SlabSuite::Destroy},
      {"cache_shrink", {"c"}, &SlabSuite::Shrink},
      {"kmalloc", {"bytes", "gfp"}, &SlabSuite::Kmalloc},
      {"obj_alloc", {"c"}, &SlabSuite::Alloc},
      {"obj_free", {}, &SlabSuite::Free},
      {"obj_alloc_bulk", {"c", "n"}, &SlabSuite::AllocBulk},
      {"obj_free_bulk", {"c", "n"}, &SlabSuite::FreeBulk},
      {"counter_init", {"value"}, &SlabSuite::CounterInit},
      {"counter_add", {"amount", "batch"}, &SlabSuite::CounterAdd},
      {"counter_set", {"value"}, &SlabSuite::CounterSet},
  };
  const auto found = std::find_if(kOperations.begin(), kOperations.end(), [&](const Operation& o) { return o.name == op; });
  return found == kOperations.end() ? nullptr : &*found;
}

absl::Span<const absl::string_view> SlabSuite::Arguments(absl::string_view op) const {
  const Operation* const found = Find(op);
  return found == nullptr ? absl::Span<const absl::string_view>() : absl::MakeConstSpan(found->arguments);
}

absl::Status SlabSuite::Load(const Json& line) {
  const std::string kind = line.value("kind", "");
  if (kind == "header") return Start(line);
  if (kind == "caches" && slub_ != nullptr) Adopt(line.at("list"));
  return absl::OkStatus();
}

absl::Status SlabSuite::Start(const Json& header) {
  const std::string flavour = header.at("flavour");
  LayoutKind kind = LayoutKind::kX86_32;
  if (flavour == "686-pae") {
    kind = LayoutKind::kX86_32Pae;
  } else if (flavour == "arm64") {
    kind = LayoutKind::kArm64;
  } else if (flavour != "686") {
    return absl::UnimplementedError(absl::StrCat("kernels of flavour \"", flavour, "\" are not simulated"));
  }
  cpus_ = header.at("cpus");
  if (cpus_ < 1 || cpus_ > 64) return absl::InvalidArgumentError("cpus must be 1 to 64");
  const Layout& layout = GetLayout(kind);
  memory_ = MakeMemory(layout.is_x86(), tracer_);
  const uint64_t linear_base = layout.is_x86() ? 0xc0000000 : 0xffff000000000000;
  slub_ = std::make_unique<Slub>(SlabPlatformOf(layout, cpus_), linear_base, *memory_, tracer_, header.value("seed", uint64_t{1}));
  return absl::OkStatus();
}

void SlabSuite::Adopt(const Json& caches) {
  slub_->ForgetCaches();
  for (auto cache = caches.rbegin(); cache != caches.rend(); ++cache) {  // The newest comes first.
    SlabGeometry g;
    g.object_size = cache->at("object_size");
    g.size = cache->at("size");
    g.align = cache->at("align");
    g.inuse = cache->at("inuse");
    g.free_ptr_offset = cache->at("free_ptr_offset");
    g.flags = FromHex(cache->at("flags"));
    g.order = cache->at("order");
    g.objects = cache->at("objs_per_slab");
    g.min_order = cache->at("min_order");
    g.min_objects = cache->at("min_objs");
    g.min_partial = cache->at("min_partial");
    g.cpu_partial = cache->at("cpu_partial");
    g.cpu_partial_slabs = cache->at("cpu_partial_slabs");
    g.alloc_gfp = GfpFrom(FromHex(cache->at("allocflags")));
    if (!IsSlabGeometry(slub_->platform(), g)) throw std::out_of_range(absl::StrCat("attributes of cache ", cache->at("name").dump()));
    slub_->AdoptCache({cache->at("name"), g.object_size, g.align, g.flags, cache->at("ctor"), cache->at("usersize")}, g,
                      cache->at("refcount"));
  }
}

void SlabSuite::Perform(const Json& op, Json& answer) {
  const Operation* const found = Find(op.at("op").get_ref<const std::string&>());
  if (slub_ == nullptr || found == nullptr) throw std::invalid_argument("an operation that is not known, or no header before it");
  (this->*found->handler)(op, answer);
}

void SlabSuite::Create(const Json& op, Json& answer) {
  const size_t before = slub_->Caches().size();
  const SysResult<SlabCacheId> id = slub_->CreateCache(
      {op.at("asked_name"), op.at("asked_size"), op.at("asked_align"), FromHex(op.at("asked_flags")), op.at("asked_ctor"), 0});
  if (!id.ok()) {
    answer["name"] = nullptr;
    return;
  }
  caches_.insert_or_assign(op.at("c").get<int64_t>(), id.value());
  const SlabCacheView view = slub_->View(id.value());
  const SlabGeometry& g = view.geometry;
  answer["merged"] = slub_->Caches().size() == before;
  answer["name"] = view.name;
  answer["object_size"] = g.object_size;
  answer["size"] = g.size;
  answer["align"] = g.align;
  answer["inuse"] = g.inuse;
  answer["free_ptr_offset"] = g.free_ptr_offset;
  answer["flags"] = absl::StrFormat("0x%x", g.flags);
  answer["order"] = g.order;
  answer["objs_per_slab"] = g.objects;
  answer["min_order"] = g.min_order;
  answer["min_objs"] = g.min_objects;
  answer["min_partial"] = g.min_partial;
  answer["cpu_partial"] = g.cpu_partial;
  answer["cpu_partial_slabs"] = g.cpu_partial_slabs;
  answer["refcount"] = view.refcount;
  answer["ctor"] = view.constructor;
  answer["usersize"] = view.usersize;
  answer["allocflags"] = AllocFlagsText(g.alloc_gfp);
}

void SlabSuite::Destroy(const Json& op, Json&) {
  const auto cache = caches_.find(op.at("c").get<int64_t>());
  if (cache == caches_.end()) throw std::out_of_range("c");
  const SlabCacheId id = cache->second;
  if (slub_->DestroyCache(id, slub_->View(id).name) != Errno::kOk) return;
  caches_.erase(cache);
}

void SlabSuite::Shrink(const Json& op, Json& answer) {
  const SlabCacheId id = caches_.at(op.at("c").get<int64_t>());
  answer["ret"] = slub_->Shrink(id) ? 1 : 0;
  AddLists(id, answer);
}

void SlabSuite::Kmalloc(const Json& op, Json& answer) {
  const uint64_t bytes = op.at("bytes");
  const Gfp gfp = GfpOfClass(op);
  const std::optional<VirtAddr> address = slub_->Kmalloc(bytes, gfp);
  if (bytes == 0) {
    answer["result"] = "zero_size_ptr";
    return;
  }
  if (!address.has_value()) {
    answer["result"] = nullptr;
    return;
  }
  answer["ksize"] = slub_->Ksize(*address).value();
  if (const std::optional<SlabCacheId> cache = slub_->KmallocCache(bytes, gfp)) {
    const SlabCacheView view = slub_->View(*cache);
    answer["cache"] = view.name;
    answer["cache_size"] = view.geometry.size;
    answer["slab_order"] = view.geometry.order;
  } else {
    answer["cache"] = nullptr;
    answer["page_order"] = slub_->Locate(*address).slab.order;
  }
  answer["offset_in_page"] = slub_->platform().page_size.OffsetIn(*address);
  slub_->Kfree(*address);
}

void SlabSuite::AddObject(SlabObject object, Json& answer) const {
  answer["slab_pfn"] = slub_->SlabOf(object).pfn.raw();
  answer["index"] = object.index;
}

void SlabSuite::AddLists(SlabCacheId id, Json& answer) const {
  const SlabCacheView view = slub_->View(id);
  const Slub::CpuView cpu = slub_->Cpu(id);
  answer["nr_slabs"] = view.slabs;
  answer["node_partial"] = view.node_partial;
  answer["cpu_partial_slabs"] = cpu.partial_slabs;
  if (cpu.slab.has_value()) answer["cpu_slab_pfn"] = cpu.slab->raw();
}

void SlabSuite::Alloc(const Json& op, Json& answer) {
  const int64_t c = op.at("c");
  const SlabCacheId id = caches_.at(c);
  const uint64_t slabs = slub_->View(id).slabs;
  const std::optional<SlabObject> object = slub_->AllocObject(id, kGfpKernel);
  if (!object.has_value()) {
    answer["slab_pfn"] = nullptr;
    return;
  }
  held_.insert_or_assign(op.at("h").get<int64_t>(), Held{c, *object});
  AddObject(*object, answer);
  AddLists(id, answer);
  if (slub_->View(id).slabs > slabs) answer["new_slab"] = true;
}

void SlabSuite::Free(const Json& op, Json& answer) {
  const auto held = held_.find(op.at("h").get<int64_t>());
  if (held == held_.end()) {
    answer["skip"] = true;
    return;
  }
  const SlabCacheId id = caches_.at(held->second.cache);
  answer["c"] = held->second.cache;
  AddObject(held->second.object, answer);
  slub_->FreeObject(id, held->second.object);
  AddLists(id, answer);
  held_.erase(held);
}

void SlabSuite::AllocBulk(const Json& op, Json& answer) {
  const int64_t c = op.at("c");
  const int64_t first = op.at("h");
  const size_t n = op.at("n");
  if (n > kMaxBulk) throw std::out_of_range("n");
  std::vector<SlabObject> objects(n);
  answer["objs"] = Json::array();
  if (slub_->AllocBulk(caches_.at(c), kGfpKernel, absl::MakeSpan(objects))) {
    for (size_t i = 0; i < n; ++i) {
      Json object = Json::object();
      AddObject(objects[i], object);
      answer["objs"].push_back(std::move(object));
      held_.insert_or_assign(first + static_cast<int64_t>(i), Held{c, objects[i]});
    }
  }
  AddLists(caches_.at(c), answer);
}

void SlabSuite::FreeBulk(const Json& op, Json& answer) {
  const int64_t c = op.at("c");
  const int64_t first = op.at("h");
  const size_t n = op.at("n");
  if (n > kMaxBulk) throw std::out_of_range("n");
  std::vector<SlabObject> objects;
  for (int64_t h = first; h < first + static_cast<int64_t>(n); ++h) {
    const auto held = held_.find(h);
    if (held == held_.end() || held->second.cache != c) continue;
    objects.push_back(held->second.object);
    held_.erase(held);
  }
  slub_->FreeBulk(caches_.at(c), objects);
  AddLists(caches_.at(c), answer);
}

void SlabSuite::CounterInit(const Json& op, Json& answer) {
  counters_.insert_or_assign(op.at("h").get<int64_t>(), PercpuCounter(op.at("value"), cpus_));
  answer["default_batch"] = PercpuCounter::DefaultBatch(cpus_);
}

void SlabSuite::CounterAdd(const Json& op, Json& answer) {
  PercpuCounter& counter = counters_.at(op.at("h").get<int64_t>());
  counter.Add(0, op.at("amount"), op.at("batch"));
  answer["count"] = counter.count();
  answer["local"] = counter.local(0);
  answer["sum"] = counter.Sum();
  answer["read_positive"] = counter.ReadPositive();
}

void SlabSuite::CounterSet(const Json& op, Json& answer) {
  PercpuCounter& counter = counters_.at(op.at("h").get<int64_t>());
  counter.Set(op.at("value"));
  answer["count"] = counter.count();
  answer["local"] = counter.local(0);
}

void SlabSuite::Learn(const Json& recorded) {
  if (recorded.at("op") != "kmalloc" || !recorded.contains("offset_in_page")) return;
  const std::optional<SlabCacheId> cache = slub_->KmallocCache(recorded.at("bytes").get<uint64_t>(), GfpOfClass(recorded));
  if (cache.has_value()) slub_->MakeNext(*cache, recorded.at("offset_in_page").get<uint32_t>());
}

void SlabSuite::Dump(Json& answer) {
  const auto cache = answer.contains("cache") ? caches_.find(answer["cache"].get<int64_t>()) : caches_.end();
  if (cache == caches_.end()) return;
  const SlabCacheView view = slub_->View(cache->second);
  const Slub::CpuView cpu = slub_->Cpu(cache->second);
  answer["nr_slabs"] = view.slabs;
  answer["total_objects"] = view.total_objects;
  answer["cpu_slab"] = nullptr;
  if (cpu.slab.has_value()) {
    const SlabPageView slab = slub_->Locate(slub_->AddressOfPage(*cpu.slab)).slab;
    answer["cpu_slab"] = {{"slab_pfn", slab.pfn.raw()},
                          {"inuse", slab.inuse},
                          {"objects", slab.objects},
                          {"free_on_cpu", cpu.free_on_cpu},
                          {"free_on_slab", cpu.free_on_slab}};
  }
  answer["cpu_partial"] = Json::array();
  int64_t left = cpu.partial_slabs;
  for (const SlabPageView& slab : slub_->CpuPartial(cache->second)) {
    answer["cpu_partial"].push_back({{"slab_pfn", slab.pfn.raw()}, {"inuse", slab.inuse}, {"slabs_left", left--}});
  }
  answer["node_partial"] = Json::array();
  for (const SlabPageView& slab : slub_->NodePartial(cache->second)) {
    answer["node_partial"].push_back({{"slab_pfn", slab.pfn.raw()}, {"inuse", slab.inuse}});
  }
}

std::vector<std::string> SlabSuite::CheckInvariants() const {
  std::vector<std::string> broken;
  if (slub_ != nullptr) slub_->CheckInvariants(&broken);
  if (memory_ != nullptr) memory_->CheckInvariants(&broken);
  return broken;
}

}  // namespace mmlab
