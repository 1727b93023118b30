#include "server/host/spec_converter.h"

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/kernel/vmallocinfo.h"
#include "server/machine/board.h"
#include "server/machine/iomem_text.h"

namespace mmlab {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr int kMaxNodes = 4096;  // Of each list; more is a mistake, not a machine.
constexpr int kMaxIomemDepth = 16;
constexpr size_t kMaxText = 4096;  // Of each string: a page.
constexpr int kMaxCpus = 64;
constexpr int kMaxSysctls = 256;
constexpr size_t kMaxIomemText = 1 << 18;

bool BringsItsOwnRam(const v1::MachineSpec& spec) {
  return spec.firmware_ranges_size() != 0 || spec.ram_bytes() != 0 || !spec.iomem_text().empty();
}

absl::Status CheckText(absl::string_view field, absl::string_view text) {
  if (text.size() > kMaxText) return InvalidField(field, absl::StrCat("must have at most ", kMaxText, " bytes"));
  for (const char c : text) {
    if (absl::ascii_iscntrl(c)) return InvalidField(field, "must not have control characters");
  }
  return absl::OkStatus();
}

absl::Status CheckCount(absl::string_view field, int count) {
  if (count > kMaxNodes) return InvalidField(field, absl::StrCat("must be at most ", kMaxNodes));
  return absl::OkStatus();
}

// REQUIRES: `range` has start_address and end_address.
template <typename Proto>
absl::StatusOr<PhysRange> RangeFromProto(const std::string& field, const Proto& range) {
  if (range.end_address() <= range.start_address()) {
    return InvalidField(absl::StrCat(field, ".end_address"), "must be above start_address");
  }
  return PhysRange{PhysAddr(range.start_address()), PhysAddr(range.end_address())};
}

absl::StatusOr<LayoutKind> LayoutFromProto(v1::Layout layout) {
  switch (layout) {
    case v1::LAYOUT_X86_32:
      return LayoutKind::kX86_32;
    case v1::LAYOUT_X86_32_PAE:
      return LayoutKind::kX86_32Pae;
    case v1::LAYOUT_ARM64:
      return LayoutKind::kArm64;
    default:
      return InvalidField("layout", "must be LAYOUT_X86_32, LAYOUT_X86_32_PAE or LAYOUT_ARM64, or come from a preset");
  }
}

absl::StatusOr<MachineSpec::TransparentHugepage> ThpFromProto(v1::TransparentHugepage thp) {
  switch (thp) {
    case v1::TRANSPARENT_HUGEPAGE_UNSPECIFIED:
    case v1::TRANSPARENT_HUGEPAGE_NEVER:
      return MachineSpec::TransparentHugepage::kNever;
    case v1::TRANSPARENT_HUGEPAGE_MADVISE:
      return MachineSpec::TransparentHugepage::kMadvise;
    case v1::TRANSPARENT_HUGEPAGE_ALWAYS:
      return MachineSpec::TransparentHugepage::kAlways;
    default:
      return InvalidField("transparent_hugepage", "must be a value of TransparentHugepage");
  }
}

absl::Status FirmwareFromProto(const v1::MachineSpec& spec, MachineSpec& native) {
  MMLAB_RETURN_IF_ERROR(CheckCount("firmware_ranges", spec.firmware_ranges_size()));
  for (int i = 0; i < spec.firmware_ranges_size(); ++i) {
    const v1::FirmwareRange& range = spec.firmware_ranges(i);
    const std::string field = absl::StrCat("firmware_ranges[", i, "]");
    if (range.type() < v1::FirmwareRange::TYPE_RAM || range.type() > v1::FirmwareRange::TYPE_UNUSABLE) {
      return InvalidField(absl::StrCat(field, ".type"), "must be set to a value of FirmwareRange.Type");
    }
    MMLAB_ASSIGN_OR_RETURN(const PhysRange addresses, RangeFromProto(field, range));
    native.firmware_ranges.push_back({addresses, static_cast<FirmwareRange::Type>(range.type())});
  }
  return absl::OkStatus();
}

absl::Status NamedRangesFromProto(absl::string_view list, const google::protobuf::RepeatedPtrField<v1::PhysicalRange>& ranges,
                                  std::vector<NamedRange>& native) {
  MMLAB_RETURN_IF_ERROR(CheckCount(list, ranges.size()));
  for (int i = 0; i < ranges.size(); ++i) {
    const std::string field = absl::StrCat(list, "[", i, "]");
    MMLAB_ASSIGN_OR_RETURN(const PhysRange addresses, RangeFromProto(field, ranges[i]));
    MMLAB_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".name"), ranges[i].name()));
    native.push_back({addresses, ranges[i].name()});
  }
  return absl::OkStatus();
}

absl::Status ReservationsFromProto(const v1::MachineSpec& spec, MachineSpec& native) {
  MMLAB_RETURN_IF_ERROR(CheckCount("reserved_ranges", spec.reserved_ranges_size()));
  for (int i = 0; i < spec.reserved_ranges_size(); ++i) {
    const v1::ReservedRange& range = spec.reserved_ranges(i);
    const std::string field = absl::StrCat("reserved_ranges[", i, "]");
    MMLAB_ASSIGN_OR_RETURN(const PhysRange addresses, RangeFromProto(field, range));
    MMLAB_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".purpose"), range.purpose()));
    native.reserved_ranges.push_back({addresses, range.purpose(), range.freed_late()});
  }
  return absl::OkStatus();
}

absl::Status IomemFromProto(const std::string& list, const google::protobuf::RepeatedPtrField<v1::IomemResource>& resources, int depth,
                            int& count, std::vector<IomemResource>& native) {
  count += resources.size();
  if (depth > kMaxIomemDepth || count > kMaxNodes) {
    return InvalidField(list, absl::StrCat("must have at most ", kMaxNodes, " resources, ", kMaxIomemDepth, " levels deep"));
  }
  for (int i = 0; i < resources.size(); ++i) {
    const std::string field = absl::StrCat(list, "[", i, "]");
    if (resources[i].last_address() < resources[i].start_address()) {
      return InvalidField(absl::StrCat(field, ".last_address"), "must not be below start_address");
    }
    MMLAB_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".name"), resources[i].name()));
    IomemResource& node = native.emplace_back(
        IomemResource{PhysAddr(resources[i].start_address()), PhysAddr(resources[i].last_address()), resources[i].name(), {}});
    MMLAB_RETURN_IF_ERROR(IomemFromProto(absl::StrCat(field, ".children"), resources[i].children(), depth + 1, count, node.children));
  }
  return absl::OkStatus();
}

absl::Status SysctlsFromProto(absl::string_view list, const google::protobuf::Map<std::string, std::string>& sysctls,
                              std::map<std::string, std::string>& native) {
  if (sysctls.size() > kMaxSysctls) return InvalidField(list, absl::StrCat("must be at most ", kMaxSysctls));
  for (const auto& [key, value] : sysctls) native.emplace(key, value);
  for (const auto& [key, value] : native) {  // In order, so that the same request always gets the same answer.
    MMLAB_RETURN_IF_ERROR(CheckText(list, key));
    if (value.size() > kMaxText) return InvalidField(absl::StrCat(list, "[\"", key, "\"]"), "must be shorter than a page");
  }
  return absl::OkStatus();
}

// Areas come by address, then the lazily freed ranges, by address again, as the file prints them.
absl::Status VmallocinfoFromProto(const google::protobuf::RepeatedPtrField<std::string>& lines, MachineSpec& native) {
  constexpr absl::string_view kField = "recorded.vmallocinfo";
  MMLAB_RETURN_IF_ERROR(CheckCount(kField, lines.size()));
  uint64_t areas_end = 0;
  uint64_t lazy_end = 0;
  for (const std::string& text : lines) {
    std::optional<VmallocinfoLine> line = ParseVmallocinfoLine(text);
    if (!line) return InvalidField(kField, "must be lines of /proc/vmallocinfo");
    const uint64_t start = line->area.start;
    uint64_t& end = line->lazy ? lazy_end : areas_end;
    if (start < end) return InvalidField(kField, "must be in order of addresses, without overlaps");
    end = line->area.end;
    if (line->lazy) {
      native.recorded_lazy_areas.push_back({start, end});
    } else {
      native.recorded_areas.push_back(std::move(line->area));
    }
  }
  return absl::OkStatus();
}

absl::Status SlabinfoFromProto(const v1::RecordedBoot& recorded, MachineSpec& native) {
  constexpr absl::string_view kField = "recorded.slabinfo";
  MMLAB_RETURN_IF_ERROR(CheckCount(kField, recorded.slabinfo_size()));
  std::set<absl::string_view> names;
  for (const std::string& text : recorded.slabinfo()) {
    std::optional<SlabinfoCounts> counts = ParseSlabinfoLine(text);
    if (!counts) return InvalidField(kField, "must be lines of /proc/slabinfo of caches that have slabs");
    if (!names.insert(absl::string_view(text).substr(0, counts->name.size())).second)
      return InvalidField(kField, "must name each cache once");
    native.recorded_slabs.push_back(*std::move(counts));
  }
  native.recorded_slabs.shrink_to_fit();
  const int64_t large = recorded.large_kmalloc_pages();
  if (large < 0 || large > 1 << 24) return FieldOutOfRange("recorded.large_kmalloc_pages", "must be 0 to 2^24");
  native.recorded_large_kmalloc_pages = static_cast<uint32_t>(large);
  return absl::OkStatus();
}

absl::Status TextsFromProto(const v1::MachineSpec& spec, MachineSpec& native) {
  const struct {
    absl::string_view field;
    const std::string& text;
    std::string& native;
  } texts[] = {
      {"kernel.release", spec.kernel().release(), native.kernel_release},
      {"kernel.version", spec.kernel().version(), native.kernel_version},
      {"kernel.machine", spec.kernel().machine(), native.kernel_machine},
      {"kernel.built_by", spec.kernel().built_by(), native.kernel_built_by},
      {"kernel.compiler", spec.kernel().compiler(), native.kernel_compiler},
      {"hostname", spec.hostname(), native.hostname},
      {"command_line", spec.command_line(), native.command_line},
  };
  for (const auto& text : texts) {
    MMLAB_RETURN_IF_ERROR(CheckText(text.field, text.text));
    text.native = text.text;
  }
  return absl::OkStatus();
}

// How the kernel was built: its address space and its slab allocator.
absl::Status AddressSpaceFromProto(const v1::MachineSpec& spec, MachineSpec& native) {
  if (!v1::VmSplit_IsValid(spec.vmsplit())) return InvalidField("vmsplit", "must be a value of VmSplit");
  if (!v1::Highmem_IsValid(spec.highmem())) return InvalidField("highmem", "must be a value of Highmem");
  if (spec.vmsplit() != v1::VM_SPLIT_UNSPECIFIED) native.vmsplit = static_cast<VmSplit>(spec.vmsplit());
  if (spec.highmem() != v1::HIGHMEM_UNSPECIFIED) native.highmem = static_cast<Highmem>(spec.highmem());
  if (spec.va_bits() != 0) native.va_bits = spec.va_bits();
  native.kasan = spec.kasan();
  const int32_t page = spec.page_size_bytes();
  if (page != 0 && page != 4096 && page != 16384 && page != 65536) return InvalidField("page_size_bytes", "must be 4096, 16384 or 65536");
  if (page > 4096 && native.layout != LayoutKind::kArm64)
    return InvalidField("page_size_bytes", "must be 4096: only LAYOUT_ARM64 has a choice");
  if (page > 4096) {
    return NotSimulated(
        absl::StrCat("machines with pages of ", page, " bytes; GetKernelLayout shows how such a kernel lays out addresses"));
  }
  if (!v1::SlabAllocator_IsValid(spec.slab_allocator())) return InvalidField("slab_allocator", "must be a value of SlabAllocator");
  if (spec.slab_allocator() != v1::SLAB_ALLOCATOR_UNSPECIFIED) {
    native.slab_allocator = static_cast<SlabAllocatorKind>(spec.slab_allocator());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::MachineSpec> MergePreset(const Presets& presets, const v1::MachineSpec& spec) {
  if (spec.ram_bytes() != 0 &&
      (spec.firmware_ranges_size() != 0 || spec.reserved_ranges_size() != 0 || spec.kernel_sections_size() != 0 ||
       spec.iomem_resources_size() != 0 || spec.cma_areas_size() != 0 || !spec.iomem_text().empty() || spec.has_initramfs())) {
    return InvalidField("ram_bytes", "excludes the fields that say what lies where in physical memory");
  }
  if (spec.preset().empty()) return spec;
  const v1::MachineSpec* preset = presets.Find(spec.preset());
  if (preset == nullptr) return ResourceNotFound("preset", spec.preset());

  v1::MachineSpec merged = *preset;
  if (BringsItsOwnRam(spec)) {
    merged.clear_firmware_ranges();
    merged.clear_ram_bytes();
    merged.clear_reserved_ranges();
    merged.clear_kernel_sections();
    merged.clear_iomem_resources();
    merged.clear_cma_areas();
    merged.clear_initramfs();
    merged.clear_iomem_text();
    merged.clear_recorded();
  }
  std::vector<const FieldDescriptor*> fields;
  const Reflection& reflection = *spec.GetReflection();
  reflection.ListFields(spec, &fields);
  for (const FieldDescriptor* field : fields) reflection.ClearField(&merged, field);
  merged.MergeFrom(spec);
  return merged;
}

absl::StatusOr<MachineSpec> MachineSpecFromProto(const v1::MachineSpec& spec) {
  MachineSpec native;
  MMLAB_ASSIGN_OR_RETURN(native.layout, LayoutFromProto(spec.layout()));
  MMLAB_ASSIGN_OR_RETURN(native.transparent_hugepage, ThpFromProto(spec.transparent_hugepage()));
  if (spec.cpus() < 0 || spec.cpus() > kMaxCpus) return InvalidField("cpus", absl::StrCat("must be 0 to ", kMaxCpus));
  if (spec.cpus() != 0) native.cpus = spec.cpus();
  if (spec.boot_time_seconds() < 0) return InvalidField("boot_time_seconds", "must not be negative");
  if (spec.boot_time_seconds() != 0) native.boot_time_seconds = spec.boot_time_seconds();
  MMLAB_RETURN_IF_ERROR(TextsFromProto(spec, native));
  MMLAB_RETURN_IF_ERROR(FirmwareFromProto(spec, native));
  MMLAB_RETURN_IF_ERROR(NamedRangesFromProto("kernel_sections", spec.kernel_sections(), native.kernel_sections));
  MMLAB_RETURN_IF_ERROR(ReservationsFromProto(spec, native));
  int iomem_count = 0;
  MMLAB_RETURN_IF_ERROR(IomemFromProto("iomem_resources", spec.iomem_resources(), 1, iomem_count, native.iomem_resources));
  MMLAB_RETURN_IF_ERROR(NamedRangesFromProto("cma_areas", spec.cma_areas(), native.cma_areas));
  MMLAB_RETURN_IF_ERROR(SysctlsFromProto("sysctls", spec.sysctls(), native.sysctls));
  MMLAB_RETURN_IF_ERROR(SysctlsFromProto("recorded.sysctls", spec.recorded().sysctls(), native.recorded_sysctls));
  MMLAB_RETURN_IF_ERROR(VmallocinfoFromProto(spec.recorded().vmallocinfo(), native));
  MMLAB_RETURN_IF_ERROR(SlabinfoFromProto(spec.recorded(), native));
  native.preset = spec.preset();
  native.no_hardware_access_flag = spec.no_hardware_access_flag();
  native.seed = spec.seed();
  MMLAB_RETURN_IF_ERROR(AddressSpaceFromProto(spec, native));
  if (spec.has_initramfs()) {
    MMLAB_ASSIGN_OR_RETURN(native.initramfs, RangeFromProto("initramfs", spec.initramfs()));
    if (native.initramfs->end.raw() > uint64_t{1} << 48) return InvalidField("initramfs.end_address", "must be at most 2^48");
  }
  if (spec.iomem_text().size() > kMaxIomemText)
    return InvalidField("iomem_text", absl::StrCat("must have at most ", kMaxIomemText, " bytes"));
  if (!spec.iomem_text().empty()) {
    const absl::Status described = DescribeFromIomemText(spec.iomem_text(), native);
    if (!described.ok()) return DetailedBootError(described);
  }
  if (spec.ram_bytes() < 0) return InvalidField("ram_bytes", "must not be negative");
  if (spec.ram_bytes() != 0) {
    const absl::Status described = DescribeUsualBoard(Bytes(static_cast<uint64_t>(spec.ram_bytes())), native);
    if (!described.ok()) return DetailedBootError(described);
  }
  return native;
}

absl::Status DetailedBootError(const absl::Status& status) {
  absl::string_view message = status.message();
  absl::ConsumePrefix(&message, "spec.");
  const size_t colon = message.find(": ");
  if (status.code() != absl::StatusCode::kInvalidArgument || colon == absl::string_view::npos) return status;
  return InvalidField(message.substr(0, colon), message.substr(colon + 2));
}

}  // namespace mmlab
