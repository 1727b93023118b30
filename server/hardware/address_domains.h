#ifndef MMLAB_SERVER_HARDWARE_ADDRESS_DOMAINS_H_
#define MMLAB_SERVER_HARDWARE_ADDRESS_DOMAINS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/base/address.h"

namespace mmlab {

// Where an address is meant. Numbers of v1::AddressDomain.
enum class AddressDomain : uint8_t {
  kCpu = 1,   // Physical addresses, as the CPU puts them on its bus.
  kDram = 2,  // Bytes of the memory chips, from 0 without holes.
  kPci = 3,   // The PCI bus: BARs of devices, and what they use for DMA.
};

// A range of the CPU domain that a controller claims and passes on.
struct AddressWindow {
  AddressDomain target = AddressDomain::kDram;
  std::string name;  // "RAM", "PCI Bus 0000:00".
  PhysRange cpu;
  uint64_t target_start = 0;  // What cpu.start is there.
};

// The windows of a machine's DRAM controller and PCI host bridge. What a device sends upstream the bridge takes for RAM at the same address
// of the CPU domain (no IOMMU).
class AddressDomains {
 public:
  // REQUIRES: windows do not overlap, neither in the CPU domain nor two of one target there.
  explicit AddressDomains(std::vector<AddressWindow> windows);

  struct Translation {
    std::optional<uint64_t> address;  // Nothing: no one answers.
    std::vector<std::string> steps;   // What happens on the way, in words.
  };
  Translation Translate(AddressDomain from, AddressDomain to, uint64_t address) const;

  const std::vector<AddressWindow>& windows() const { return windows_; }  // By CPU address.

 private:
  std::optional<uint64_t> ToCpu(AddressDomain from, uint64_t address, std::vector<std::string>& steps) const;
  std::optional<uint64_t> FromCpu(AddressDomain to, uint64_t address, std::vector<std::string>& steps) const;
  const AddressWindow* WindowAtCpu(uint64_t address) const;
  const AddressWindow* WindowAtTarget(AddressDomain target, uint64_t address) const;

  std::vector<AddressWindow> windows_;
};

// Names for people: "CPU", "DRAM", "PCI"; "DRAM controller", "PCI host bridge".
const char* AddressDomainName(AddressDomain domain);
const char* ControllerName(AddressDomain target);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HARDWARE_ADDRESS_DOMAINS_H_
