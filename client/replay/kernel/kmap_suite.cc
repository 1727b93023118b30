#include "client/replay/kernel/kmap_suite.h"

#include <stdexcept>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/arch/kernel_layout.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

Json Hex(uint64_t value) { return absl::StrCat("0x", absl::Hex(value)); }

}  // namespace

absl::Span<const absl::string_view> KmapSuite::Arguments(absl::string_view op) const {
  static constexpr absl::string_view kAlloc[] = {"gfp", "pfn"};
  static constexpr absl::string_view kUnmapLocal[] = {"addr"};
  if (op == "alloc") return kAlloc;
  if (op == "kunmap_local") return kUnmapLocal;
  return {};
}

absl::Status KmapSuite::Load(const Json& line) {
  const std::string kind = line.value("kind", "");
  if (kind == "header") {
    KernelLayoutConfig layout_config;
    layout_config.kind = line.at("flavour") == "686-pae" ? LayoutKind::kX86_32Pae : LayoutKind::kX86_32;
    if (line.at("arch") == "arm64") return absl::InvalidArgumentError("ARM64 has no high memory");
    const uint64_t frames = line.at("ram_mb").get<uint64_t>() << 8;
    const int cpus = line.at("cpus");
    if (frames == 0 || frames > (uint64_t{1} << 24) || cpus < 1 || cpus > 32) return absl::InvalidArgumentError("so much RAM or CPUs");
    const PfnRange ram{Pfn(0), Pfn(frames)};
    MMLAB_ASSIGN_OR_RETURN(const KernelLayout layout, ComputeKernelLayout(layout_config, {&ram, 1}, PhysAddr(0)));
    KmapConfig config;
    config.page_offset = layout.page_offset;
    config.max_low_pfn = layout.max_low_pfn;
    config.end_pfn = layout.max_pfn;
    config.pkmap_base = layout.pkmap_base;
    config.last_pkmap = layout.last_pkmap;
    config.fix_kmap_first = layout.FixToVirt(layout.fix_kmap_begin);
    config.cpus = cpus;
    kmap_ = std::make_unique<Kmap>(config, nullptr, tracer_);
  }
  if (kind == "state") {
    if (kmap_ == nullptr) return absl::InvalidArgumentError("a dump before the header");
    std::vector<std::pair<uint32_t, Kmap::Slot>> slots;
    for (const Json& slot : line.at("pkmap_count")) {
      slots.push_back({slot.at(0).get<uint32_t>(), {slot.at(1).get<uint32_t>(), Pfn(slot.at(2).get<uint64_t>())}});
    }
    if (!kmap_->Load(line.at("last_pkmap_nr"), slots)) return absl::InvalidArgumentError("the first dump contradicts itself");
  }
  return absl::OkStatus();
}

void KmapSuite::Perform(const Json& op, Json& answer) {
  if (kmap_ == nullptr) throw std::invalid_argument("no header before the first operation");
  const std::string name = op.at("op");
  const auto refuse = [&](Errno error) {
    if (error != Errno::kOk) answer["errno"] = std::string(ErrnoName(error));
  };
  if (name == "alloc") {
    const Pfn frame(op.at("pfn").get<uint64_t>());
    frames_[op.at("h")] = frame;
    answer["highmem"] = kmap_->IsHigh(frame);
  } else if (name == "kmap" || name == "kmap_local") {
    const Pfn frame = frames_.at(op.at("h"));
    const SysResult<VirtAddr> address = name == "kmap" ? kmap_->Map(frame) : kmap_->MapLocal(frame, 0);
    answer["addr"] = address.ok() ? Hex(address.value().raw()) : Json(nullptr);
  } else if (name == "kunmap") {
    refuse(kmap_->Unmap(frames_.at(op.at("h"))));
  } else if (name == "kunmap_local") {
    uint64_t address = 0;
    if (!absl::SimpleHexAtoi(op.at("addr").get_ref<const std::string&>(), &address))
      throw std::invalid_argument("an address that is no number");
    refuse(kmap_->UnmapLocal(VirtAddr(address), 0));
  } else if (name == "kmap_flush_unused") {
    kmap_->FlushUnused();
  } else if (name == "free") {
    frames_.erase(op.at("h").get<int64_t>());
  } else {
    throw std::invalid_argument(absl::StrCat("operation ", name));
  }
}

void KmapSuite::Dump(Json& answer) {
  if (kmap_ == nullptr) return;
  answer["last_pkmap_nr"] = kmap_->last_pkmap_nr();
  answer["local_idx"] = kmap_->local(0).size();
  Json& counts = answer["pkmap_count"] = Json::array();
  for (uint32_t slot = 0; slot < kmap_->slots().size(); ++slot) {
    const Kmap::Slot& at = kmap_->slots()[slot];
    if (at.count != 0) counts.push_back(Json::array({slot, at.count, at.frame.raw()}));
  }
}

std::vector<std::string> KmapSuite::CheckInvariants() const {
  std::vector<std::string> broken;
  if (kmap_ != nullptr) kmap_->CheckInvariants(&broken);
  return broken;
}

}  // namespace mmlab
