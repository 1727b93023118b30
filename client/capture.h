#ifndef MMLAB_CLIENT_CAPTURE_H_
#define MMLAB_CLIENT_CAPTURE_H_

#include <string>

#include "absl/status/statusor.h"
#include "mmlab/v1/machine.pb.h"

namespace mmlab {

// Reads what firmware, loader and command line of a captured machine say, from a folder with files named as in /proc, and nothing that the
// kernel computed from it: the kernel's name (version), the e820 table (firmware_memmap.tsv, or BIOS-e820 lines of dmesg) or memory banks
// ("node 0:" lines), the initramfs (RAMDISK lines), iomem, cmdline and the number of CPUs (cpuinfo). NOT_FOUND: no such folder or file;
// INVALID_ARGUMENT names the file and what is wrong with it.
absl::StatusOr<v1::MachineSpec> SpecFromCapture(const std::string& folder);

// The firmware's map in a kernel's log: BIOS-e820 lines, or on ARM64 ("node   0:" lines) the memory banks; or lines of START, LAST and TYPE
// as in firmware_memmap.tsv. Goes to spec.firmware_ranges. INVALID_ARGUMENT: none is there, or a line of the latter is not understood.
absl::Status AddFirmwareRanges(const std::string& text, v1::MachineSpec& spec);

// "sys/vm/swappiness" -> "sys_vm/swappiness", "sys/kernel/osrelease" -> "sys_kernel_osrelease": where a /proc file lies in a capture.
std::string CaptureFileName(const std::string& proc_path);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CAPTURE_H_
