#include "server/machine/physical_access.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/arch/page_table_format.h"
#include "server/machine/memory_map.h"
#include "server/physical/page_allocator.h"

namespace mmlab {
namespace {

using Kind = PhysicalTarget::Kind;

// The innermost resource that holds the address; null: none does.
const IomemResource* ResourceAt(const std::vector<IomemResource>& resources, PhysAddr address) {
  for (const IomemResource& resource : resources) {
    if (address < resource.start || resource.last < address) continue;
    const IomemResource* inner = ResourceAt(resource.children, address);
    return inner != nullptr ? inner : &resource;
  }
  return nullptr;
}

const char* FirmwareText(FirmwareRange::Type type) {
  switch (type) {
    case FirmwareRange::Type::kRam:
      return "RAM";
    case FirmwareRange::Type::kReserved:
      return "reserved by firmware";
    case FirmwareRange::Type::kAcpi:
      return "ACPI tables";
    case FirmwareRange::Type::kNvs:
      return "ACPI non-volatile storage";
    case FirmwareRange::Type::kUnusable:
      return "unusable memory";
  }
  return "";
}

const char* RefusalText(Kind kind) {
  switch (kind) {
    case Kind::kRam:
    case Kind::kFree:
    case Kind::kPageTable:
      break;
    case Kind::kNotSimulated:
      return "RAM that boot took: its bytes are not simulated";
    case Kind::kFirmware:
      return "kept by firmware: its bytes are not simulated";
    case Kind::kDevice:
      return "a device answers, which is not simulated";
    case Kind::kNothing:
      return "nothing answers at the address";
  }
  return "";
}

}  // namespace

PhysicalAccess::PhysicalAccess(const Machine& machine) : machine_(machine), map_(KernelMemoryMap(machine.spec())), tables_(machine) {}

// The bytes of a page; those of a table of the kernel as its entries are, computed ones too.
void PhysicalAccess::ReadPage(Pfn pfn, uint64_t offset, uint64_t count, char* out) const {
  if (!tables_.Has(pfn)) return machine_.memory().contents().Read(pfn, offset, out, count);
  const PageTableFormat format(machine_.layout());
  const auto width = static_cast<uint64_t>(format.entry_bytes());
  for (uint64_t done = 0; done < count; ++done) {
    const uint64_t entry = tables_.Entry(pfn, static_cast<uint32_t>((offset + done) / width));
    out[done] = static_cast<char>(entry >> (8 * ((offset + done) % width)));
  }
}

PhysicalTarget PhysicalAccess::At(PhysAddr address) const {
  const auto range = std::find_if(map_.begin(), map_.end(), [&](const FirmwareRange& r) { return r.range.Contains(address); });
  const BuddyMemory& memory = machine_.memory();
  const Pfn pfn = machine_.layout().page_size.FrameHolding(address);
  if (range == map_.end() || range->type != FirmwareRange::Type::kRam || pfn >= memory.end_pfn()) {
    if (const IomemResource* device = ResourceAt(machine_.spec().iomem_resources, address); device != nullptr && range == map_.end()) {
      return {Kind::kDevice, device->name};
    }
    if (range != map_.end()) return {Kind::kFirmware, FirmwareText(range->type)};
    return {Kind::kNothing, "hole"};
  }
  const Frame frame = memory.PeekFrame(memory.HeadOf(pfn));
  Kind kind = Kind::kRam;
  if (frame.state == FrameState::kFree || frame.state == FrameState::kPcp) kind = Kind::kFree;
  if (frame.state == FrameState::kReserved && memory.contents().Empty(pfn)) kind = Kind::kNotSimulated;
  if (frame.state == FrameState::kPageTable || tables_.Has(pfn)) kind = Kind::kPageTable;
  return {kind, "RAM"};
}

uint64_t PhysicalAccess::Read(PhysAddr address, uint64_t length, std::string* data, std::string* reason) const {
  const PageSize page = machine_.layout().page_size;
  uint64_t done = 0;
  while (done < length) {
    if (address.raw() + done < done) {
      *reason = "the last physical address was read";
      break;
    }
    const PhysAddr at = address + Bytes(done);
    const PhysicalTarget target = At(at);
    if (const std::string refusal = RefusalText(target.kind); !refusal.empty()) {
      *reason = absl::StrCat("0x", absl::Hex(at.raw()), ": ", refusal, " (", target.what, ")");
      break;
    }
    const uint64_t offset = at.raw() & page.mask();
    const uint64_t count = std::min(length - done, page.bytes().raw() - offset);
    const size_t before = data->size();
    data->resize(before + count);
    ReadPage(page.FrameHolding(at), offset, count, data->data() + before);
    done += count;
  }
  return done;
}

Errno PhysicalAccess::CheckWrite(PhysAddr address, uint64_t length, Explanation* why) const {
  const PageSize page = machine_.layout().page_size;
  for (uint64_t done = 0; done < length;) {
    if (address.raw() + done < done) return Errno::kEFAULT;
    const PhysAddr at = address + Bytes(done);
    const PhysicalTarget target = At(at);
    Errno error = Errno::kOk;
    const char* text = "RAM takes the bytes";
    switch (target.kind) {
      case Kind::kRam:
        break;
      case Kind::kFree:
        error = Errno::kEPERM;
        text = "the frame is free: what is written there would belong to nobody";
        break;
      case Kind::kPageTable:
        error = Errno::kEPERM;
        text = "a page table: only the kernel writes it";
        break;
      case Kind::kNotSimulated:
        error = Errno::kEPERM;
        text = RefusalText(target.kind);
        break;
      case Kind::kFirmware:
      case Kind::kDevice:
      case Kind::kNothing:
        error = Errno::kEFAULT;
        text = RefusalText(target.kind);
        break;
    }
    if (why != nullptr) {
      ExplanationStep& step = why->Add(StepKind::kPhysicalAccess, text).Physical("address", at).Text("target", target.what);
      if (error != Errno::kOk) step.Error(error);
    }
    if (error != Errno::kOk) return error;
    done += std::min(length - done, page.bytes().raw() - (at.raw() & page.mask()));
  }
  return Errno::kOk;
}

}  // namespace mmlab
