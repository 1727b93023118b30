#ifndef MMLAB_SERVER_ARCH_ENTRY_FIELDS_H_
#define MMLAB_SERVER_ARCH_ENTRY_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/arch/layout.h"
#include "server/base/address.h"

namespace mmlab {

// A bit, or bits that go together, of a page-table entry, with the manual's name: Intel SDM volume 3, chapter 4; ARM ARM, chapter D8. Bits
// that the hardware leaves to software have the kernel's name.
struct EntryField {
  absl::string_view name;
  int bit = 0;  // The lowest.
  int width = 1;
  uint64_t value = 0;
  std::string meaning;  // What this value says.
};

enum class EntryKind : uint8_t {
  kNone,        // All zero (pte_none).
  kTable,       // Points at the next table.
  kPage,        // Maps a page.
  kBlock,       // Of an upper level: maps memory itself (a large page of x86).
  kProtNone,    // Not valid for the processor; to the kernel it maps a page that nobody may touch.
  kNotPresent,  // Not valid, and kept by software for something else.
};
absl::string_view EntryKindName(EntryKind kind);  // "prot_none"

struct EntryDescription {
  EntryKind kind = EntryKind::kNone;
  std::vector<EntryField> fields;  // Lowest bit first.
  std::optional<PhysAddr> target;  // Where it points: a table, a page, a block.

  // The names of the bits that are set, numbers with their value: "P RW US A D", "AttrIndx=4 AP=1 SH=3 AF".
  std::string Text() const;
};

// What an entry says that stands in a table of that level, 1 (pte) to the layout's top (pgd).
EntryDescription DescribeEntry(const Layout& layout, uint64_t entry, int level);

}  // namespace mmlab

#endif  // MMLAB_SERVER_ARCH_ENTRY_FIELDS_H_
