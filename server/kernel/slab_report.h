#ifndef MMLAB_SERVER_KERNEL_SLAB_REPORT_H_
#define MMLAB_SERVER_KERNEL_SLAB_REPORT_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace mmlab {

// Patterns of include/linux/poison.h.
inline constexpr uint8_t kPoisonFree = 0x6b;  // In a free object,
inline constexpr uint8_t kPoisonEnd = 0xa5;   // and its last byte.
inline constexpr uint8_t kRedActive = 0xcc;   // Guard words beside an object that somebody holds (SLUB_RED_ACTIVE).

// print_hex_dump(): lines of 16 bytes, each with `prefix` and its address in front and its characters behind. At most a page of them.
void AppendHexDump(std::string* text, absl::string_view prefix, uint64_t address, absl::string_view bytes, int digits);
// "6b 6b 00 ...  kk.": the bytes of one line and their characters.
std::string HexLine(absl::string_view bytes);

}  // namespace mmlab

#endif  // MMLAB_SERVER_KERNEL_SLAB_REPORT_H_
