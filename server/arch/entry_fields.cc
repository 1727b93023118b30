#include "server/arch/entry_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/arch/page_table_format.h"

namespace mmlab {
namespace {

// Takes fields out of an entry, in the order of its bits.
class Reader {
 public:
  Reader(uint64_t entry, EntryDescription& out) : entry_(entry), out_(out) {}

  uint64_t Bits(int bit, int width) const { return entry_ >> bit & ((uint64_t{1} << width) - 1); }
  void Bit(int bit, absl::string_view name, absl::string_view if_set, absl::string_view if_clear) {
    Add(bit, 1, name, Bits(bit, 1) != 0 ? if_set : if_clear);
  }
  void Add(int bit, int width, absl::string_view name, absl::string_view meaning) {
    out_.fields.push_back({name, bit, width, Bits(bit, width), std::string(meaning)});
  }

 private:
  const uint64_t entry_;
  EntryDescription& out_;
};

void AddX86Address(Reader& reader, int level, EntryKind kind, bool pae) {
  const int lowest = kind == EntryKind::kBlock && level == 2 ? (pae ? 21 : 22) : 12;
  if (lowest != 12) reader.Bit(12, "PAT", "memory type by PAT, with PWT and PCD", "memory type by PWT and PCD alone");
  const int width = (pae ? 52 : 32) - lowest;
  reader.Add(lowest, width, "address", kind == EntryKind::kTable ? "frame of the next table" : "frame that is mapped");
  if (pae && level < 3) reader.Bit(63, "XD", "no instructions are fetched from here", "instructions may be fetched");
}

void DescribeX86(uint64_t entry, int level, bool pae, EntryDescription& out) {
  Reader reader(entry, out);
  reader.Bit(0, "P", "present", "not present: the processor looks at no other bit");
  if (out.kind == EntryKind::kNone) return;
  const int width = pae ? 64 : 32;
  if (out.kind == EntryKind::kNotPresent) return reader.Add(1, width - 1, "software", "left to software");
  if (out.kind == EntryKind::kProtNone) {
    reader.Add(1, 7, "software", "protection, as it would be");
    reader.Bit(8, "PROTNONE", "a page that nobody may touch (_PAGE_PROTNONE)", "");
    return reader.Add(9, width - 9, "software", pae ? "frame number, kept inverted" : "frame number");
  }
  const bool directory_pointer = pae && level == 3;  // It has neither protection nor an accessed bit.
  if (!directory_pointer) {
    reader.Bit(1, "RW", "may be written", "read only");
    reader.Bit(2, "US", "user mode may use it", "of the kernel only");
  }
  reader.Bit(3, "PWT", "write-through caching", "write-back caching");
  reader.Bit(4, "PCD", "not cached", "cached");
  if (!directory_pointer) reader.Bit(5, "A", "accessed", "not accessed since it was cleared");
  if (out.kind == EntryKind::kTable) {
    if (!directory_pointer) reader.Bit(7, "PS", "", "points at a table");
  } else {
    reader.Bit(6, "D", "dirty: written to", "clean");
    if (out.kind == EntryKind::kBlock) {
      reader.Bit(7, "PS", pae ? "a page of 2 MiB" : "a page of 4 MiB", "");
    } else {
      reader.Bit(7, "PAT", "memory type by PAT, with PWT and PCD", "memory type by PWT and PCD alone");
    }
    reader.Bit(8, "G", "global: stays in the TLB when CR3 is loaded", "goes from the TLB when CR3 is loaded");
    reader.Bit(9, "SPECIAL", "no page that the kernel counts (_PAGE_SPECIAL)", "left to software");
  }
  AddX86Address(reader, level, out.kind, pae);
}

absl::string_view ArmAccess(uint64_t ap) {
  constexpr absl::string_view kMeanings[] = {"kernel reads and writes", "kernel and user read and write", "kernel reads",
                                             "kernel and user read"};
  return kMeanings[ap];
}

absl::string_view ArmShareability(uint64_t sh) {
  constexpr absl::string_view kMeanings[] = {"not shared", "reserved", "outer shareable", "inner shareable"};
  return kMeanings[sh];
}

// What the kernel wrote into MAIR_EL1 (arch/arm64/mm/proc.S).
absl::string_view ArmMemoryType(uint64_t index) {
  constexpr absl::string_view kMeanings[] = {"MT_NORMAL",       "MT_NORMAL_TAGGED", "MT_NORMAL_NC", "MT_DEVICE_nGnRnE",
                                             "MT_DEVICE_nGnRE", "not used",         "not used",     "not used"};
  return kMeanings[index];
}

void DescribeArm64Table(Reader& reader) {
  reader.Bit(1, "type", "a table", "");
  reader.Add(12, 36, "address", "frame of the next table");
  reader.Bit(59, "PXNTable", "the kernel fetches no instructions below", "no limit on the kernel's fetches");
  reader.Bit(60, "UXNTable", "user mode fetches no instructions below", "no limit on user mode's fetches");
  reader.Add(61, 2, "APTable", "limits of access below");
  reader.Bit(63, "NSTable", "non-secure", "secure");
}

void DescribeArm64(uint64_t entry, int level, EntryDescription& out) {
  Reader reader(entry, out);
  reader.Bit(0, "valid", "valid", "not valid: the processor looks at no other bit");
  if (out.kind == EntryKind::kNone) return;
  if (out.kind == EntryKind::kTable) return DescribeArm64Table(reader);
  if (out.kind == EntryKind::kNotPresent) return reader.Add(1, 63, "software", "left to software");
  reader.Bit(1, "type", "a page", level == 1 ? "reserved" : "a block");
  reader.Add(2, 3, "AttrIndx", ArmMemoryType(reader.Bits(2, 3)));
  reader.Bit(5, "NS", "non-secure", "secure");
  reader.Add(6, 2, "AP", ArmAccess(reader.Bits(6, 2)));
  reader.Add(8, 2, "SH", ArmShareability(reader.Bits(8, 2)));
  reader.Bit(10, "AF", "accessed", "not accessed since it was cleared");
  reader.Bit(11, "nG", "of one ASID", "global: of all ASIDs");
  const int lowest = 12 + 9 * (level - 1);
  reader.Add(lowest, 48 - lowest, "address", "frame that is mapped");
  reader.Bit(50, "GP", "guarded: branches must land on BTI", "not guarded");
  reader.Bit(51, "DBM", "may be written; a read-only AP only means clean (PTE_WRITE)", "AP alone decides about writing");
  reader.Bit(52, "contiguous", "one of a run that a single TLB entry may hold", "by itself");
  reader.Bit(53, "PXN", "the kernel fetches no instructions", "the kernel may fetch instructions");
  reader.Bit(54, "UXN", "user mode fetches no instructions", "user mode may fetch instructions");
  reader.Bit(55, "DIRTY", "dirty, as software noted (PTE_DIRTY)", "left to software");
  reader.Bit(56, "SPECIAL", "no page that the kernel counts (PTE_SPECIAL)", "left to software");
  reader.Bit(57, "DEVMAP", "memory of a device (PTE_DEVMAP)", "left to software");
  reader.Bit(58, "PROT_NONE", "a page that nobody may touch (PTE_PROT_NONE)", "left to software");
}

EntryKind KindOf(const PageTableFormat& format, uint64_t entry, int level) {
  if (format.IsBlock(entry, level)) return EntryKind::kBlock;
  if (format.Valid(entry)) return level == 1 ? EntryKind::kPage : EntryKind::kTable;
  if (format.None(entry)) return EntryKind::kNone;
  // A page, or a huge one.
  return level <= 2 && format.Present(entry) ? EntryKind::kProtNone : EntryKind::kNotPresent;
}

}  // namespace

absl::string_view EntryKindName(EntryKind kind) {
  switch (kind) {
    case EntryKind::kNone:
      return "none";
    case EntryKind::kTable:
      return "table";
    case EntryKind::kPage:
      return "page";
    case EntryKind::kBlock:
      return "block";
    case EntryKind::kProtNone:
      return "prot_none";
    case EntryKind::kNotPresent:
      return "not present";
  }
  return "";
}

std::string EntryDescription::Text() const {
  if (kind == EntryKind::kNone) return "none";
  std::string text;
  for (const EntryField& field : fields) {
    if (field.value == 0 || field.name == "address" || field.name == "software") continue;
    absl::StrAppend(&text, text.empty() ? "" : " ", field.name);
    if (field.width > 1) absl::StrAppend(&text, "=", field.value);
  }
  if (kind == EntryKind::kNotPresent) return "not present";
  return text;
}

EntryDescription DescribeEntry(const Layout& layout, uint64_t entry, int level) {
  const PageTableFormat format(layout);
  EntryDescription out;
  out.kind = KindOf(format, entry, level);
  if (layout.kind == LayoutKind::kArm64) {
    DescribeArm64(entry, level, out);
  } else {
    DescribeX86(entry, level, layout.kind == LayoutKind::kX86_32Pae, out);
  }
  if (out.kind == EntryKind::kTable) out.target = layout.page_size.StartOf(format.TableOf(entry));
  if (out.kind == EntryKind::kPage || out.kind == EntryKind::kProtNone) {
    out.target = PhysAddr(layout.page_size.StartOf(format.PfnOf(entry)).raw() & ~(format.coverage(level) - 1));
  }
  if (out.kind == EntryKind::kBlock) out.target = format.BlockAddress(entry, level);
  return out;
}

}  // namespace mmlab
