#include "server/kernel/kmap.h"

#include "absl/strings/str_cat.h"
#include "server/kernel/kernel_page_tables.h"

namespace mmlab {

Kmap::Kmap(const KmapConfig& config, KernelPageTables* tables, Tracer& tracer)
    : config_(config), tables_(tables), tracer_(tracer), local_(static_cast<size_t>(config.cpus)) {}

VirtAddr Kmap::SlotAddress(uint32_t slot) const { return config_.pkmap_base + config_.page_size.BytesOf(PageCount(slot)); }

VirtAddr Kmap::LocalAddress(int cpu, size_t index) const {
  return config_.fix_kmap_first - config_.page_size.BytesOf(PageCount(static_cast<uint64_t>(cpu) * kLocalSlots + index));
}

bool Kmap::Load(uint32_t last_pkmap_nr, absl::Span<const std::pair<uint32_t, Slot>> slots) {
  if (last_pkmap_nr >= config_.last_pkmap) return false;
  last_ = last_pkmap_nr;
  slots_.assign(config_.last_pkmap, Slot());
  slot_of_.clear();
  for (const auto& [number, slot] : slots) {
    if (number >= config_.last_pkmap || slot.count == 0 || !slot_of_.emplace(slot.frame.raw(), number).second) return false;
    slots_[number] = slot;
  }
  return true;
}

void Kmap::FlushUnused() {
  for (uint32_t number = 0; number < slots_.size(); ++number) {
    Slot& slot = slots_[number];
    if (slot.count != 1) continue;
    slot_of_.erase(slot.frame.raw());
    if (tables_ != nullptr) tables_->Unmap({SlotAddress(number), SlotAddress(number + 1)});
    slot = Slot();
  }
}

SysResult<uint32_t> Kmap::FindSlot() {
  uint32_t left = config_.last_pkmap;
  for (;;) {
    last_ = (last_ + 1) & (config_.last_pkmap - 1);
    if (last_ == 0) {
      if (Explanation* why = tracer_.explanation()) why->Add(StepKind::kKmapSlot, "the search wrapped: slots without users are flushed");
      FlushUnused();
      left = config_.last_pkmap;
    }
    if (slots_[last_].count == 0) return last_;
    if (--left == 0) return Errno::kEAGAIN;
  }
}

SysResult<VirtAddr> Kmap::Map(Pfn frame) {
  if (frame >= config_.end_pfn) return Errno::kEINVAL;
  if (!IsHigh(frame)) {
    if (Explanation* why = tracer_.explanation()) {
      why->Add(StepKind::kKmapSlot, "the frame is in the linear map, where the kernel reaches it always: no slot is needed")
          .Frame("frame", frame)
          .Frame("max_low_pfn", config_.max_low_pfn);
    }
    return LinearAddress(frame);
  }
  if (config_.last_pkmap == 0) return Errno::kEINVAL;
  if (slots_.empty()) slots_.resize(config_.last_pkmap);
  const auto known = slot_of_.find(frame.raw());
  const bool is_new = known == slot_of_.end();
  uint32_t number = is_new ? 0 : known->second;
  if (is_new) {
    const SysResult<uint32_t> found = FindSlot();
    if (!found.ok()) {
      if (Explanation* why = tracer_.explanation()) {
        why->Add(StepKind::kKmapSlot, "every slot has a user: kmap() would sleep until one is unmapped")
            .Number("slots", config_.last_pkmap);
      }
      return found.error();
    }
    number = found.value();
    if (tables_ != nullptr && !tables_->MapPage(SlotAddress(number), frame, KernelPageTables::Kind::kMemory)) return Errno::kENOMEM;
    slots_[number] = {1, frame};
    slot_of_[frame.raw()] = number;
  }
  ++slots_[number].count;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kKmapSlot,
             is_new ? "the frame is above the linear map: the next empty slot maps it" : "the frame has a slot already")
        .Frame("frame", frame)
        .Frame("max_low_pfn", config_.max_low_pfn)
        .Number("slot", number)
        .Number("pkmap_count", slots_[number].count);
  }
  return SlotAddress(number);
}

Errno Kmap::Unmap(Pfn frame) {
  if (frame >= config_.end_pfn) return Errno::kEINVAL;
  if (!IsHigh(frame)) return Errno::kOk;
  const auto known = slot_of_.find(frame.raw());
  if (known == slot_of_.end() || slots_[known->second].count < 2) return Errno::kEINVAL;
  const uint32_t count = --slots_[known->second].count;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kKmapSlot,
             count > 1 ? "the slot has other users" : "the slot has no user left: it maps the frame until slots are flushed")
        .Frame("frame", frame)
        .Number("slot", known->second)
        .Number("pkmap_count", count);
  }
  return Errno::kOk;
}

SysResult<VirtAddr> Kmap::MapLocal(Pfn frame, int cpu) {
  if (frame >= config_.end_pfn || cpu < 0 || cpu >= config_.cpus) return Errno::kEINVAL;
  if (!IsHigh(frame)) return LinearAddress(frame);
  if (config_.last_pkmap == 0) return Errno::kEINVAL;
  std::vector<Pfn>& stack = local_[static_cast<size_t>(cpu)];
  if (stack.size() >= static_cast<size_t>(kLocalSlots)) return Errno::kEAGAIN;
  const VirtAddr address = LocalAddress(cpu, stack.size());
  if (tables_ != nullptr && !tables_->MapPage(address, frame, KernelPageTables::Kind::kMemory)) return Errno::kENOMEM;
  stack.push_back(frame);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kKmapSlot, "the next slot of this CPU's stack in the fixmap")
        .Frame("frame", frame)
        .Number("cpu", cpu)
        .Number("index", static_cast<int64_t>(stack.size()) - 1)
        .Address("address", address);
  }
  return address;
}

Errno Kmap::UnmapLocal(VirtAddr address, int cpu) {
  if (cpu < 0 || cpu >= config_.cpus) return Errno::kEINVAL;
  const VirtAddr page = config_.page_size.RoundDown(address);
  const uint64_t lowmem_end = config_.page_offset.raw() + config_.page_size.StartOf(config_.max_low_pfn).raw();
  if (config_.page_offset <= page && page.raw() < lowmem_end) return Errno::kOk;
  std::vector<Pfn>& stack = local_[static_cast<size_t>(cpu)];
  if (stack.empty() || page != LocalAddress(cpu, stack.size() - 1)) return Errno::kEINVAL;
  if (tables_ != nullptr) tables_->Unmap({page, page + config_.page_size.bytes()});
  stack.pop_back();
  return Errno::kOk;
}

uint64_t Kmap::HostMemory() const {
  uint64_t bytes = sizeof(Kmap) + slots_.capacity() * sizeof(Slot) + slot_of_.size() * 24;
  for (const std::vector<Pfn>& stack : local_) bytes += sizeof(std::vector<Pfn>) + stack.capacity() * sizeof(Pfn);
  return bytes;
}

void Kmap::AddToHash(StateHasher& hasher) const {
  hasher.Add(last_);
  for (const auto& [frame, number] : slot_of_) {
    hasher.Add(frame);
    hasher.Add(number);
    hasher.Add(slots_[number].count);
  }
  for (const std::vector<Pfn>& stack : local_) {
    hasher.Add(stack.size());
    for (const Pfn frame : stack) hasher.Add(frame.raw());
  }
}

void Kmap::CheckInvariants(std::vector<std::string>* problems) const {
  size_t used = 0;
  for (uint32_t number = 0; number < slots_.size(); ++number) {
    if (slots_[number].count == 0) continue;
    ++used;
    const auto known = slot_of_.find(slots_[number].frame.raw());
    if (known == slot_of_.end() || known->second != number) problems->push_back(absl::StrCat("kmap: slot ", number, " is not its frame's"));
  }
  if (used != slot_of_.size()) problems->push_back("kmap: frames and slots disagree");
}

}  // namespace mmlab
