#ifndef MMLAB_SERVER_PHYSICAL_MIGRATE_TYPE_H_
#define MMLAB_SERVER_PHYSICAL_MIGRATE_TYPE_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace mmlab {

// What the pages of a page block are wanted for. Linux: enum migratetype, include/linux/mmzone.h. Plain numbers, because they index arrays.
enum MigrateType : uint8_t {
  kMigrateUnmovable = 0,
  kMigrateMovable = 1,
  kMigrateReclaimable = 2,
  kMigrateHighatomic = 3,  // Kept for high-order allocations that cannot wait.
  kMigrateCma = 4,
  kMigrateIsolate = 5,
};
inline constexpr int kMigrateTypes = 6;
inline constexpr int kMigratePcpTypes = 3;  // Only the first three have per-CPU lists and fall back to each other.

// As /proc/pagetypeinfo prints it: "Unmovable", "HighAtomic", "CMA".
inline absl::string_view MigrateTypeName(int type) {
  constexpr absl::string_view kNames[kMigrateTypes] = {"Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate"};
  return kNames[type];
}

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_MIGRATE_TYPE_H_
