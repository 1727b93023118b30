#ifndef MMLAB_SERVER_MACHINE_SYSCTLS_H_
#define MMLAB_SERVER_MACHINE_SYSCTLS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/arch/layout.h"
#include "server/base/errno.h"
#include "server/base/hash.h"

namespace mmlab {

// The sysctls that a machine knows, sorted by name. kCount is their number.
enum class Sysctl : uint8_t {
  kKernelPidMax,
  kKernelRandomizeVaSpace,
  kKernelShmall,
  kKernelShmmax,
  kKernelShmmni,
  kKernelThreadsMax,
  kVmAdminReserveKbytes,
  kVmCompactMemory,
  kVmCompactUnevictableAllowed,
  kVmCompactionProactiveness,
  kVmDirtyBackgroundBytes,
  kVmDirtyBackgroundRatio,
  kVmDirtyBytes,
  kVmDirtyExpireCentisecs,
  kVmDirtyRatio,
  kVmDirtyWritebackCentisecs,
  kVmDirtytimeExpireSeconds,
  kVmDropCaches,
  kVmExtfragThreshold,
  kVmHighmemIsDirtyable,
  kVmHugetlbShmGroup,
  kVmLaptopMode,
  kVmLegacyVaLayout,
  kVmLowmemReserveRatio,
  kVmMaxMapCount,
  kVmMemoryFailureEarlyKill,
  kVmMemoryFailureRecovery,
  kVmMinFreeKbytes,
  kVmMinSlabRatio,
  kVmMinUnmappedRatio,
  kVmMmapMinAddr,
  kVmMmapRndBits,
  kVmMmapRndCompatBits,
  kVmNrHugepages,
  kVmNrHugepagesMempolicy,
  kVmNrOvercommitHugepages,
  kVmNumaStat,
  kVmNumaZonelistOrder,
  kVmOomDumpTasks,
  kVmOomKillAllocatingTask,
  kVmOvercommitKbytes,
  kVmOvercommitMemory,
  kVmOvercommitRatio,
  kVmPageCluster,
  kVmPageLockUnfairness,
  kVmPanicOnOom,
  kVmPercpuPagelistHighFraction,
  kVmStatInterval,
  kVmStatRefresh,
  kVmSwappiness,
  kVmUnprivilegedUserfaultfd,
  kVmUserReserveKbytes,
  kVmVdsoEnabled,
  kVmVfsCachePressure,
  kVmWatermarkBoostFactor,
  kVmWatermarkScaleFactor,
  kVmZoneReclaimMode,
  kCount
};

// What became of writing a sysctl.
struct SysctlWrite {
  Errno error = Errno::kOk;
  std::optional<Sysctl> changed;  // Set when the value was taken.

  static SysctlWrite Taken(Sysctl id) { return {Errno::kOk, id}; }
  static SysctlWrite Refused(Errno error) { return {error, std::nullopt}; }
};

// The values below /proc/sys of one machine. Linux: kernel/sysctl.c, ipc/ipc_sysctl.c and the handlers in mm/.
//
// Only values: what follows from a change (watermarks, reserves, limits of processes) is the machine's to do.
class Sysctls {
 public:
  // The defaults of a 6.1 kernel on this layout. What depends on the size of memory is set by the machine.
  explicit Sysctls(const Layout& layout);

  // By its full name ("vm.swappiness"). Nothing: this layout's kernel has no such.
  std::optional<Sysctl> Find(absl::string_view name) const;
  // Names of all that this layout's kernel has, sorted.
  std::vector<absl::string_view> Names() const;

  // The text of the file, with its newline. Nothing: the file can only be written.
  std::optional<std::string> Text(Sysctl id) const;
  // Writes the file as `echo text > file` does as root: ENOENT no such sysctl, EINVAL not a number or out of the kernel's range,
  // EACCES a file that cannot be written.
  SysctlWrite Write(absl::string_view name, absl::string_view text);

  uint64_t value(Sysctl id) const { return values_[static_cast<size_t>(id)]; }
  // For values that the kernel computes.
  void Set(Sysctl id, uint64_t value) { values_[static_cast<size_t>(id)] = value; }
  // lowmem_reserve_ratio, by zone index.
  const std::array<uint32_t, 4>& lowmem_reserve_ratio() const { return lowmem_reserve_ratio_; }

  void AddToHash(StateHasher& hasher) const;

 private:
  SysctlWrite WriteRatios(absl::string_view text);
  SysctlWrite WriteUlong(Sysctl id, uint64_t magnitude, bool negative);
  SysctlWrite WriteInt(Sysctl id, uint64_t magnitude, bool negative);
  void ClearRival(Sysctl id, uint64_t old);

  LayoutKind layout_;
  int max_mmap_rnd_bits_;                                               // Of ARM64: with 48-bit addresses, with 39-bit ones.
  std::array<uint64_t, static_cast<size_t>(Sysctl::kCount)> values_{};  // A negative int is kept sign-extended.
  std::array<uint32_t, 4> lowmem_reserve_ratio_{};
};

// "vm.swappiness".
absl::string_view SysctlName(Sysctl id);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_SYSCTLS_H_
