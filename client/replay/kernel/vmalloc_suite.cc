#include "client/replay/kernel/vmalloc_suite.h"

#include <limits>
#include <stdexcept>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMostPages = 1 << 20;  // More than any call that was recorded maps.

// "0xf7443000". Throws std::invalid_argument.
uint64_t Number(const Json& hex) {
  uint64_t value = 0;
  if (!absl::SimpleHexAtoi(hex.get_ref<const std::string&>(), &value)) throw std::invalid_argument("an address that is no number");
  return value;
}

Json Hex(uint64_t value) { return absl::StrCat("0x", absl::Hex(value)); }

bool IsAllocation(absl::string_view name) {
  return name == "vmalloc" || name == "vzalloc" || name == "vmalloc_32" || name == "vmalloc_user" || name == "vmalloc_range" ||
         name == "vmap" || name == "get_vm_area" || name == "ioremap" || name == "vm_map_ram";
}

}  // namespace

absl::Span<const absl::string_view> VmallocSuite::Arguments(absl::string_view) const {
  static constexpr absl::string_view kArguments[] = {"bytes", "align", "start", "end", "flags", "pages", "phys", "cpu"};
  return kArguments;
}

void VmallocSuite::LoadHeader(const Json& header) {
  const bool arm64 = header.at("arch") == "arm64";
  config_.last_address = arm64 ? std::numeric_limits<uint64_t>::max() : std::numeric_limits<uint32_t>::max();
  config_.word_bytes = arm64 ? 8 : 4;
  config_.ioremap_max_order = arm64 ? 30 : header.at("flavour") == "686" ? 22 : 21;
  config_.max_cpus = header.at("config").at("NR_CPUS");
  config_.cpus = header.at("cpus");
  config_.total_ram = PageCount(header.at("ram_mb").get<uint64_t>() << 8);
  if (config_.cpus < 1 || config_.cpus > config_.max_cpus || config_.max_cpus > 8192) throw std::invalid_argument("so many CPUs");
}

absl::Status VmallocSuite::LoadState(const Json& state) {
  vmalloc_ = std::make_unique<Vmalloc>(config_, nullptr, nullptr, tracer_);
  std::vector<KernelArea> areas;
  for (const Json& from : state.at("busy")) {
    KernelArea area;
    area.start = Number(from.at(0));
    area.end = Number(from.at(1));
    area.has_vm = from.size() > 2;
    if (area.has_vm) {
      area.caller = from.at(2);
      area.nr_pages = from.at(3);
      area.flags = static_cast<uint32_t>(Number(from.at(4)));
    }
    areas.push_back(std::move(area));
  }
  std::vector<FreeAreaTree::Area> lazy;
  for (const Json& range : state.at("lazy")) lazy.push_back({Number(range.at(0)), Number(range.at(1))});
  std::map<uint64_t, uint64_t> ends;
  for (const Json& range : state.at("free")) ends[Number(range.at(0))] = Number(range.at(1));
  std::vector<FreeAreaTree::RecordedNode> tree;
  for (const Json& node : state.at("free_tree_preorder")) {
    const uint64_t start = Number(node.at(0));
    tree.push_back({start, ends.at(start), node.at(1) == "r", node.at(2) == 1, node.at(3) == 1});
  }
  if (!vmalloc_->Load(areas, lazy, tree)) return absl::InvalidArgumentError("the first dump contradicts itself");
  other_pages_ = state.at("vmalloc_pages").get<int64_t>() - static_cast<int64_t>(vmalloc_->nr_vmalloc_pages());
  return absl::OkStatus();
}

absl::Status VmallocSuite::Load(const Json& line) {
  const std::string kind = line.value("kind", "");
  if (kind == "header") LoadHeader(line);
  if (kind == "facts") {
    config_.start = VirtAddr(Number(line.at("VMALLOC_START")));
    config_.end = VirtAddr(Number(line.at("VMALLOC_END")));
    if (config_.start >= config_.end || config_.end.raw() > config_.last_address)
      return absl::InvalidArgumentError("facts: an empty range");
  }
  if (kind == "state" && vmalloc_ == nullptr) return LoadState(line);
  return absl::OkStatus();
}

SysResult<VmallocOutcome> VmallocSuite::Allocate(const std::string& name, const Json& op) {
  VmallocRequest request;
  request.size = Bytes(op.value("bytes", uint64_t{0}));
  request.gfp = kGfpKernel;
  const auto pages = op.value("pages", uint64_t{0});
  if (pages > kMostPages) throw std::invalid_argument("so many pages");
  const std::vector<Pfn> array(pages);
  if (name == "vmap") return vmalloc_->Map(array, kVmMap, "");
  if (name == "vm_map_ram") return vmalloc_->MapRam(array, 0);
  if (name == "get_vm_area") return vmalloc_->GetArea(request.size, op.at("flags").get<uint32_t>() & kVmAreaFlags, "");
  if (name == "ioremap") return vmalloc_->Ioremap(PhysAddr(Number(op.at("phys"))), request.size, "");
  if (name == "vmalloc_user") request.flags = kVmUsermap;
  if (name == "vmalloc_range") {
    request.align = op.at("align");
    request.start = VirtAddr(Number(op.at("start")));
    request.end = VirtAddr(Number(op.at("end")));
    request.flags = op.value("flags", 0u) & kVmAreaFlags;
  }
  return vmalloc_->Alloc(request);
}

SysResult<VmallocOutcome> VmallocSuite::Release(const std::string& name, const Held& held) {
  if (name == "vfree") return vmalloc_->Free(held.address);
  if (name == "vunmap" || name == "free_vm_area") return vmalloc_->Unmap(held.address);
  if (name == "iounmap") return vmalloc_->Iounmap(held.address);
  if (name == "vm_unmap_ram") return vmalloc_->UnmapRam(held.address, PageCount(held.pages));
  throw std::invalid_argument(absl::StrCat("operation ", name));
}

void VmallocSuite::Perform(const Json& op, Json& answer) {
  if (vmalloc_ == nullptr) throw std::invalid_argument("no dump before the first operation");
  const std::string name = op.at("op");
  if (name == "vm_unmap_aliases") {
    answer["lazy"] = vmalloc_->UnmapAliases().lazy.raw();
    return;
  }
  const int64_t handle = op.at("h");
  const bool allocates = IsAllocation(name);
  const SysResult<VmallocOutcome> result = allocates ? Allocate(name, op) : Release(name, held_[handle]);
  if (!result.ok()) {
    answer["addr"] = nullptr;
    answer["lazy"] = vmalloc_->lazy_pages().raw();
    return;
  }
  const VmallocOutcome& outcome = result.value();
  answer["addr"] = Hex(outcome.address.raw());
  if (allocates) {
    held_[handle] = {outcome.address, op.value("pages", uint64_t{0})};
    answer["area"] = Hex(outcome.area.start.raw());
    answer["area_size"] = outcome.area.length().raw();
    answer["nr_pages"] = outcome.nr_pages;
  } else {
    held_.erase(handle);
  }
  if (outcome.lazy_before_purge) answer["lazy_before_purge"] = outcome.lazy_before_purge->raw();
  answer["lazy"] = outcome.lazy.raw();
}

void VmallocSuite::Dump(Json& answer) {
  if (vmalloc_ == nullptr) return;
  answer["lazy_pages"] = vmalloc_->lazy_pages().raw();
  answer["vmalloc_pages"] = static_cast<int64_t>(vmalloc_->nr_vmalloc_pages()) + other_pages_;
  Json& busy = answer["busy"] = Json::array();
  for (const auto& [start, area] : vmalloc_->areas()) {
    Json one = Json::array({Hex(start), Hex(area.end)});
    if (area.has_vm) {
      one.push_back(area.caller);
      one.push_back(area.nr_pages);
      one.push_back(Hex(area.flags));
    }
    busy.push_back(std::move(one));
  }
  Json& lazy = answer["lazy"] = Json::array();
  for (const auto& [start, end] : vmalloc_->lazy_ranges()) lazy.push_back(Json::array({Hex(start), Hex(end)}));
  Json& free = answer["free"] = Json::array();
  vmalloc_->free_areas().ForEach([&](FreeAreaTree::Area area) { free.push_back(Json::array({Hex(area.start), Hex(area.end)})); });
}

std::vector<std::string> VmallocSuite::CheckInvariants() const {
  std::vector<std::string> broken;
  if (vmalloc_ != nullptr) vmalloc_->CheckInvariants(&broken);
  return broken;
}

}  // namespace mmlab
