#include "server/physical/zone.h"

namespace mmlab {

absl::string_view ZoneTypeName(ZoneType type) {
  constexpr absl::string_view kNames[] = {"DMA", "DMA32", "Normal", "HighMem", "Movable"};
  return kNames[static_cast<int>(type)];
}

absl::string_view Zone::name() const { return ZoneTypeName(type); }

std::vector<ZoneType> ZoneTypesOf(ZoneSet set) {
  switch (set) {
    case ZoneSet::kX86_32LowMem:
      return {ZoneType::kDma, ZoneType::kNormal, ZoneType::kMovable};
    case ZoneSet::kArm64:
      return {ZoneType::kDma, ZoneType::kDma32, ZoneType::kNormal, ZoneType::kMovable};
    case ZoneSet::kX86_32:
      break;
  }
  return {ZoneType::kDma, ZoneType::kNormal, ZoneType::kHighMem, ZoneType::kMovable};
}

}  // namespace mmlab
