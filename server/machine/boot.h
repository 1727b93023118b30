#ifndef MMLAB_SERVER_MACHINE_BOOT_H_
#define MMLAB_SERVER_MACHINE_BOOT_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/machine/machine_spec.h"
#include "server/physical/physical_config.h"

namespace mmlab {

// Fills in what a description left open: the kernel's name, the ranges that its kernel keeps (PlanReservations), CPUs, the clock.
// INVALID_ARGUMENT names the field of v1::MachineSpec and the rule.
absl::Status CompleteSpec(MachineSpec& spec);

// The kernel's address space. REQUIRES: CompleteSpec was OK. INVALID_ARGUMENT as there.
absl::StatusOr<KernelLayout> PlanKernelLayout(const MachineSpec& spec);

// From firmware's ranges and the kernel's reservations to what the page allocator starts with: RAM, zones, reserved frames. Linux:
// setup_arch(), free_area_init(), arch/x86/mm/init_32.c, arch/arm64/mm/init.c. REQUIRES: CompleteSpec was OK. INVALID_ARGUMENT as there.
absl::StatusOr<PhysicalConfig> PlanPhysicalMemory(const MachineSpec& spec);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_BOOT_H_
