#include "server/machine/board.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace mmlab {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

FirmwareRange Firmware(uint64_t start, uint64_t end, FirmwareRange::Type type) { return {{PhysAddr(start), PhysAddr(end)}, type}; }
IomemResource Node(absl::string_view name, uint64_t start, uint64_t last, std::vector<IomemResource> children = {}) {
  return {PhysAddr(start), PhysAddr(last), std::string(name), std::move(children)};
}

// QEMU's "pc" (i440FX): 64-bit RAM from 4 GiB on when there is more than 3.5 GiB; tables of ACPI in the last 140 KiB below.
void DescribePc(uint64_t ram, MachineSpec& spec) {
  const uint64_t low = ram >= 0xe0000000 ? 0xc0000000 : ram;
  const auto usable = FirmwareRange::Type::kRam;
  const auto reserved = FirmwareRange::Type::kReserved;
  spec.firmware_ranges = {
      Firmware(0, 0x9fc00, usable),          Firmware(0x9fc00, 0xa0000, reserved),   Firmware(0xf0000, kMiB, reserved),
      Firmware(kMiB, low - 0x23000, usable), Firmware(low - 0x23000, low, reserved), Firmware(0xfffc0000, 4 * kGiB, reserved),
  };
  if (ram > low) spec.firmware_ranges.push_back(Firmware(4 * kGiB, 4 * kGiB + (ram - low), usable));
  spec.firmware_ranges.push_back(Firmware(0xfd00000000, 0x10000000000, reserved));
  spec.iomem_resources = {
      Node("PCI Bus 0000:00", 0xa0000, 0xbffff, {Node("Video RAM area", 0xa0000, 0xbffff)}),
      Node("Video ROM", 0xc0000, 0xc05ff),
      Node("System ROM", 0xf0000, 0xfffff),
      Node("PCI Bus 0000:00", low, 0xfebfffff,
           {Node("0000:00:02.0", 0xfebf8000, 0xfebfbfff), Node("0000:00:02.0", 0xfebff000, 0xfebfffff)}),
      Node("IOAPIC 0", 0xfec00000, 0xfec003ff),
      Node("HPET 0", 0xfed00000, 0xfed003ff, {Node("PNP0103:00", 0xfed00000, 0xfed003ff)}),
      Node("Local APIC", 0xfee00000, 0xfee00fff),
  };
}

// QEMU's "virt": one bank from 1 GiB.
void DescribeVirt(uint64_t ram, MachineSpec& spec) {
  spec.firmware_ranges = {Firmware(kGiB, kGiB + ram, FirmwareRange::Type::kRam)};
  spec.iomem_resources = {
      Node("pl011@9000000", 0x9000000, 0x9000fff, {Node("9000000.pl011 pl011@9000000", 0x9000000, 0x9000fff)}),
      Node("pl031@9010000", 0x9010000, 0x9010fff, {Node("rtc-pl031", 0x9010000, 0x9010fff)}),
      Node("pl061@9030000", 0x9030000, 0x9030fff, {Node("9030000.pl061 pl061@9030000", 0x9030000, 0x9030fff)}),
      Node("pcie@10000000", 0x10000000, 0x3efeffff),
      Node("PCI ECAM", 0x4010000000, 0x401fffffff),
      Node("pcie@10000000", 0x8000000000, 0xffffffffff),
  };
}

}  // namespace

DefaultKernel DefaultKernelOf(LayoutKind layout) {
  DefaultKernel kernel;
  kernel.built_by = "debian-kernel@lists.debian.org";
  kernel.compiler = "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40";
  kernel.version = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)";
  switch (layout) {
    case LayoutKind::kX86_32:
      kernel.release = "6.1.0-50-686";
      break;
    case LayoutKind::kX86_32Pae:
      kernel.release = "6.1.0-50-686-pae";
      break;
    case LayoutKind::kArm64:
      kernel.release = "6.1.0-50-arm64";
      kernel.version = "#1 SMP Debian 6.1.176-1 (2026-07-02)";
      break;
  }
  return kernel;
}

absl::Status DescribeUsualBoard(Bytes ram, MachineSpec& spec) {
  const bool x86 = spec.layout != LayoutKind::kArm64;
  const uint64_t least = (x86 ? 48 : 64) * kMiB;
  uint64_t most = kGiB * 1024;
  if (spec.layout == LayoutKind::kX86_32) most = 0xe0000000 - kMiB;
  // The last GiB below 4 GiB belongs to devices, and the memory map has to fit into lowmem.
  if (spec.layout == LayoutKind::kX86_32Pae) most = 64 * kGiB - kGiB;
  const uint64_t bytes = ram.raw();
  if (bytes % kMiB != 0 || bytes < least || bytes > most) {
    return absl::InvalidArgumentError(absl::StrCat("spec.ram_bytes: on ", GetLayout(spec.layout).name, " a multiple of 1 MiB, ",
                                                   least / kMiB, " MiB to ", most / kMiB, " MiB"));
  }
  spec.kernel_sections.clear();
  spec.reserved_ranges.clear();
  spec.cma_areas.clear();
  spec.recorded_sysctls.clear();
  if (x86) {
    DescribePc(bytes, spec);
  } else {
    DescribeVirt(bytes, spec);
  }
  return absl::OkStatus();
}

}  // namespace mmlab
