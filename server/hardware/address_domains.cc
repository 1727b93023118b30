#include "server/hardware/address_domains.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mmlab {
namespace {

std::string Hex(uint64_t value) { return absl::StrCat("0x", absl::Hex(value)); }

std::string WindowText(const AddressWindow& w) {
  return absl::StrCat("'", w.name, "' ", Hex(w.cpu.start.raw()), "-", Hex(w.cpu.end.raw() - 1));
}

}  // namespace

const char* AddressDomainName(AddressDomain domain) {
  switch (domain) {
    case AddressDomain::kCpu:
      return "CPU";
    case AddressDomain::kDram:
      return "DRAM";
    case AddressDomain::kPci:
      return "PCI";
  }
  return "";
}

const char* ControllerName(AddressDomain target) { return target == AddressDomain::kDram ? "DRAM controller" : "PCI host bridge"; }

AddressDomains::AddressDomains(std::vector<AddressWindow> windows) : windows_(std::move(windows)) {
  std::sort(windows_.begin(), windows_.end(), [](const AddressWindow& a, const AddressWindow& b) { return a.cpu.start < b.cpu.start; });
}

const AddressWindow* AddressDomains::WindowAtCpu(uint64_t address) const {
  for (const AddressWindow& w : windows_) {
    if (w.cpu.Contains(PhysAddr(address))) return &w;
  }
  return nullptr;
}

const AddressWindow* AddressDomains::WindowAtTarget(AddressDomain target, uint64_t address) const {
  for (const AddressWindow& w : windows_) {
    if (w.target == target && address >= w.target_start && address - w.target_start < w.cpu.length().raw()) return &w;
  }
  return nullptr;
}

std::optional<uint64_t> AddressDomains::ToCpu(AddressDomain from, uint64_t address, std::vector<std::string>& steps) const {
  if (from == AddressDomain::kCpu) return address;
  if (const AddressWindow* w = WindowAtTarget(from, address)) {
    const uint64_t cpu = w->cpu.start.raw() + (address - w->target_start);
    steps.push_back(absl::StrCat(AddressDomainName(from), " ", Hex(address), " lies behind the ", ControllerName(from), "'s window ",
                                 WindowText(*w), ": the CPU reaches it at ", Hex(cpu)));
    return cpu;
  }
  if (from == AddressDomain::kPci) {
    if (const AddressWindow* w = WindowAtCpu(address); w != nullptr && w->target == AddressDomain::kDram) {
      steps.push_back(absl::StrCat("no device has PCI ", Hex(address), "; a device that sends it upstream (DMA) means CPU ", Hex(address),
                                   ", in ", WindowText(*w)));
      return address;
    }
  }
  steps.push_back(absl::StrCat("no window leads to ", AddressDomainName(from), " ", Hex(address)));
  return std::nullopt;
}

std::optional<uint64_t> AddressDomains::FromCpu(AddressDomain to, uint64_t address, std::vector<std::string>& steps) const {
  if (to == AddressDomain::kCpu) return address;
  const AddressWindow* w = WindowAtCpu(address);
  if (w == nullptr) {
    steps.push_back(absl::StrCat("no controller claims CPU ", Hex(address)));
    return std::nullopt;
  }
  if (w->target == to) {
    const uint64_t target = w->target_start + (address - w->cpu.start.raw());
    steps.push_back(absl::StrCat("the ", ControllerName(to), " claims CPU ", Hex(address), " by its window ", WindowText(*w), ": ",
                                 AddressDomainName(to), " ", Hex(target)));
    return target;
  }
  if (to == AddressDomain::kPci) {
    steps.push_back(absl::StrCat("CPU ", Hex(address), " is RAM and does not go to the bus; a device names it by the same number in DMA"));
    return address;
  }
  steps.push_back(absl::StrCat("CPU ", Hex(address), " goes to the PCI bus by ", WindowText(*w), ", not to memory"));
  return std::nullopt;
}

AddressDomains::Translation AddressDomains::Translate(AddressDomain from, AddressDomain to, uint64_t address) const {
  Translation result;
  if (from == to) {
    result.steps.push_back("both are the same domain");
    result.address = address;
    return result;
  }
  const std::optional<uint64_t> cpu = ToCpu(from, address, result.steps);
  if (cpu) result.address = FromCpu(to, *cpu, result.steps);
  return result;
}

}  // namespace mmlab
