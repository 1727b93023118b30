#ifndef MMLAB_SERVER_MACHINE_PHYSICAL_ACCESS_H_
#define MMLAB_SERVER_MACHINE_PHYSICAL_ACCESS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/base/errno.h"
#include "server/base/explanation.h"
#include "server/machine/kernel_tables_reader.h"
#include "server/machine/machine.h"
#include "server/machine/machine_spec.h"

namespace mmlab {

// What answers when the CPU puts a physical address on its bus.
struct PhysicalTarget {
  enum class Kind : uint8_t {
    kRam,           // RAM whose bytes are kept.
    kFree,          // RAM that nobody has: its bytes are zero and would not last.
    kPageTable,     // RAM that holds a page table.
    kNotSimulated,  // RAM whose bytes are not simulated: the kernel's image, what boot took.
    kFirmware,      // Kept by firmware.
    kDevice,        // A window of a device.
    kNothing,
  };
  Kind kind = Kind::kNothing;
  std::string what;  // "PCI Bus 0000:00", "ACPI tables", "RAM".
};

// The bytes in a machine's physical memory, as something outside of the kernel reaches them: a debugger, DMA.
class PhysicalAccess {
 public:
  // `machine` outlives this and does not change in between.
  explicit PhysicalAccess(const Machine& machine);

  PhysicalTarget At(PhysAddr address) const;
  // Appends bytes until all are read or something does not answer; how many. `reason` says why it ended early.
  uint64_t Read(PhysAddr address, uint64_t length, std::string* data, std::string* reason) const;
  // What a write of these bytes runs into first: kOk, kEFAULT no RAM, kEPERM RAM that must not be written here. Explains page by page.
  Errno CheckWrite(PhysAddr address, uint64_t length, Explanation* why) const;

 private:
  void ReadPage(Pfn pfn, uint64_t offset, uint64_t count, char* out) const;

  const Machine& machine_;
  const std::vector<FirmwareRange> map_;
  const KernelTablesReader tables_;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_PHYSICAL_ACCESS_H_
