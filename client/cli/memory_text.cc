#include "client/cli/memory_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

std::string Range(uint64_t start, uint64_t end) { return fmt::format("{:x}-{:x}", start, end); }

void AddLine(std::string& text, const char* name, const std::string& value) { text += fmt::format("  {:<18} {}\n", name, value); }

std::string SlotText(const v1::MapleSlot& slot) {
  const std::string range = fmt::format("{:x}-{:x}", slot.first(), slot.last());
  switch (slot.content_case()) {
    case v1::MapleSlot::kVma:
      return "vma " + range;
    case v1::MapleSlot::kChild:
      return fmt::format("node {} {} gap {:#x}", slot.child(), range, slot.gap_bytes());
    default:
      return fmt::format("hole {} gap {:#x}", range, slot.gap_bytes());
  }
}

std::string NodeText(const v1::VmaStoreNode& node) {
  const std::string indent(2 * static_cast<size_t>(node.depth()), ' ');
  if (node.has_rb()) {
    const v1::RbTreeNode& rb = node.rb();
    const auto child = [](int64_t number) { return number < 0 ? std::string("-") : absl::StrCat(number); };
    return fmt::format("{}{} {} {} left {} right {} list {} gap {:#x} rb_subtree_gap {:#x}\n", indent, node.number(),
                       rb.red() ? "red" : "black", Range(rb.vm_start(), rb.vm_end()), child(rb.left()), child(rb.right()),
                       rb.list_position(), rb.gap_bytes(), rb.rb_subtree_gap_bytes());
  }
  const v1::MapleTreeNode& maple = node.maple();
  std::string text = fmt::format("{}{} {} {:x}-{:x} {} of {} slots\n", indent, node.number(),
                                 maple.type() == v1::MapleTreeNode::TYPE_LEAF_64 ? "maple_leaf_64" : "maple_arange_64", maple.min(),
                                 maple.max(), maple.slots_size(), maple.slot_limit());
  for (const v1::MapleSlot& slot : maple.slots()) text += fmt::format("{}  {}\n", indent, SlotText(slot));
  return text;
}

}  // namespace

std::string AddressSpaceText(const v1::AddressSpace& mm) {
  std::string text = "mm_struct:\n";
  const auto address = [&text](const char* name, uint64_t value) { AddLine(text, name, HexText(value)); };
  const auto count = [&text](const char* name, int64_t value) { AddLine(text, name, absl::StrCat(value)); };
  const auto pages = [&text](const char* name, int64_t value) {
    AddLine(text, name, absl::StrCat(value, value == 1 ? " page" : " pages"));
  };
  address("mmap_base", mm.mmap_base());
  if (mm.mmap_legacy_base() != 0) address("mmap_legacy_base", mm.mmap_legacy_base());
  address("task_size", mm.task_size());
  AddLine(text, "highest_vm_end", HexText(mm.highest_vm_end()) + "  (4.12)");
  AddLine(text, "pgd", fmt::format("{:#x}, physical {:#x}", mm.pgd(), mm.pgd_physical_address()));
  if (mm.context_id() != 0) AddLine(text, "context.id", fmt::format("{:#x} (ASID {})", mm.context_id(), mm.context_id() & 0xffff));
  count("mm_users", mm.mm_users());
  count("mm_count", mm.mm_count());
  count("map_count", mm.map_count());
  AddLine(text, "nr_ptes", absl::StrCat(mm.nr_ptes(), "  (4.12)"));
  AddLine(text, "nr_pmds", absl::StrCat(mm.nr_pmds(), "  (4.12)"));
  AddLine(text, "pgtables_bytes", absl::StrCat(mm.pgtables_bytes(), "  (6.1)"));
  pages("hiwater_rss", mm.hiwater_rss_pages());
  pages("hiwater_vm", mm.hiwater_vm_pages());
  pages("total_vm", mm.total_vm_pages());
  pages("locked_vm", mm.locked_vm_pages());
  pages("pinned_vm", mm.pinned_vm_pages());
  pages("data_vm", mm.data_vm_pages());
  pages("exec_vm", mm.exec_vm_pages());
  pages("stack_vm", mm.stack_vm_pages());
  address("def_flags", mm.def_flags());
  AddLine(text, "code", Range(mm.start_code(), mm.end_code()));
  AddLine(text, "data", Range(mm.start_data(), mm.end_data()));
  address("start_brk", mm.start_brk());
  address("brk", mm.brk());
  address("start_stack", mm.start_stack());
  AddLine(text, "arg", Range(mm.arg_start(), mm.arg_end()));
  AddLine(text, "env", Range(mm.env_start(), mm.env_end()));
  const v1::RssStat& rss = mm.rss_stat();
  AddLine(text, "rss_stat",
          fmt::format("file {} anon {} swap {} shmem {} (pending {})", rss.file_pages(), rss.anon_pages(), rss.swap_entries(),
                      rss.shmem_pages(), rss.pending_pages()));
  address("flags", mm.flags());
  if (!mm.exe_file().empty()) AddLine(text, "exe_file", mm.exe_file());
  for (const v1::AuxiliaryValue& entry : mm.saved_auxv()) {
    AddLine(text, "saved_auxv",
            fmt::format("{} {:#x}", entry.type_name().empty() ? absl::StrCat(entry.type()) : entry.type_name(), entry.value()));
  }
  return text;
}

std::string VmAreaStructsText(const std::vector<v1::VmAreaStruct>& areas, bool wide) {
  std::vector<std::string> headings = {"VM_START-VM_END", "FLAGS", "PGOFF", "OPS", "FILE"};
  if (wide) headings = {"VM_START-VM_END", "FLAGS", "PGOFF", "OPS", "PAGE PROT", "ANON_VMA", "CHAIN", "GUARD GAP", "FILE"};
  std::vector<std::vector<std::string>> rows;
  for (const v1::VmAreaStruct& area : areas) {
    const std::string flags = fmt::format("{:#x} {}", area.vm_flags(), absl::StrJoin(area.vm_flag_names(), "|"));
    std::vector<std::string> row = {Range(area.vm_start(), area.vm_end()), flags, fmt::format("{:#x}", area.vm_pgoff()),
                                    area.vm_ops().empty() ? "NULL" : area.vm_ops()};
    if (wide) {
      row.push_back(fmt::format("{:#x} {}", area.vm_page_prot(), area.vm_page_prot_text()));
      row.push_back(area.anon_vma() == 0 ? "NULL" : absl::StrCat(area.anon_vma()));
      row.push_back(area.anon_vma_chain().empty() ? "-" : absl::StrJoin(area.anon_vma_chain(), ","));
      row.push_back(area.guard_gap_bytes() == 0 ? "-" : BytesText(area.guard_gap_bytes()));
    }
    row.push_back(!area.vm_file().empty() ? area.vm_file() : area.anon_name().empty() ? "-" : "[anon:" + area.anon_name() + "]");
    rows.push_back(std::move(row));
  }
  return TableText(headings, rows);
}

std::string VmaStoreText(const std::vector<v1::VmaStoreNode>& nodes, const v1::ListVmaStoreNodesResponse& summary) {
  const bool maple = summary.node_bytes() != 0;
  std::string text = fmt::format("{}: {} VMAs in {} nodes, depth {}", maple ? "maple tree (6.1)" : "list and red-black tree (4.12)",
                                 summary.vma_count(), summary.node_count(), summary.depth());
  text += maple ? fmt::format(", {} bytes of nodes\n", summary.node_bytes()) : "\n";
  // Each node before what is below it, as a tree is read.
  std::map<int64_t, std::vector<const v1::VmaStoreNode*>> below;
  for (const v1::VmaStoreNode& node : nodes) below[node.parent()].push_back(&node);
  std::vector<const v1::VmaStoreNode*> open(below[-1].rbegin(), below[-1].rend());
  while (!open.empty()) {
    const v1::VmaStoreNode& node = *open.back();
    open.pop_back();
    text += NodeText(node);
    const std::vector<const v1::VmaStoreNode*>& children = below[node.number()];
    open.insert(open.end(), children.rbegin(), children.rend());
  }
  return text;
}

std::string PagemapText(const std::vector<v1::PagemapEntry>& entries) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::PagemapEntry& entry : entries) {
    const std::string kind = entry.file_or_shared() ? "file" : "anon";
    rows.push_back({fmt::format("{:#x}", entry.address()), entry.present() ? "memory" : "swap",
                    entry.present() ? fmt::format("{:#x}", entry.pfn()) : fmt::format("{}:{}", entry.swap_area(), entry.swap_slot()),
                    entry.present() ? kind : "-", entry.exclusive() ? "yes" : "no", fmt::format("{:#018x}", entry.value()),
                    absl::StrJoin(entry.page_flags(), ",")});
  }
  return TableText({"ADDRESS", "IN", "PFN OR SLOT", "KIND", "EXCLUSIVE", "ENTRY", "FLAGS"}, rows);
}

std::string TranslationText(const v1::TranslateVirtualAddressResponse& translation, bool wide) {
  std::string text = fmt::format("region    {}\n", translation.region());
  if (!translation.base_register().empty()) {
    text += fmt::format("base      {} {:#x}", translation.base_register(), translation.base_value());
    text += translation.asid() != 0 ? fmt::format(", ASID {}\n", translation.asid()) : "\n";
  }
  for (const v1::TranslationStep& step : translation.steps()) {
    text += fmt::format("{:<9} table {:#x} index {} at {:#x}: {:#x} {}", step.level(), step.table_address(), step.index(),
                        step.entry_address(), step.entry(), step.kind());
    if (step.target_address() != 0) text += fmt::format(" -> {:#x}", step.target_address());
    text += fmt::format("  [{}]\n", step.text());
    for (const v1::EntryField& field : step.fields()) {
      if (!wide) break;
      const std::string bits =
          field.width() == 1 ? absl::StrCat(field.bit()) : absl::StrCat(field.bit() + field.width() - 1, ":", field.bit());
      text += fmt::format("            {:>6} {:<12} {:#x}  {}\n", bits, field.name(), field.value(), field.meaning());
    }
  }
  if (translation.mapped()) {
    text += fmt::format("physical  {:#x}", translation.physical_address());
    if (translation.page_bytes() != 0) text += fmt::format(", in a page of {}", BytesText(static_cast<int64_t>(translation.page_bytes())));
    if (!translation.frame_state().empty()) text += fmt::format(", frame is {}", translation.frame_state());
    text += "\n";
  } else {
    text += "physical  none\n";
  }
  if (translation.has_fault()) {
    const v1::TranslationFault& fault = translation.fault();
    text += fmt::format("fault     {}{}", fault.kind(), fault.level().empty() ? "" : " at " + fault.level());
    if (fault.esr() != 0) text += fmt::format(", ESR_EL1 {:#x}", fault.esr());
    if (fault.esr() == 0 && (translation.base_register() == "CR3" || fault.x86_error_code() != 0)) {
      text += fmt::format(", error code {:#x}", fault.x86_error_code());
    }
    text += fmt::format(": {}\n", fault.reason());
  }
  if (!translation.note().empty()) text += fmt::format("note      {}\n", translation.note());
  return text;
}

std::string HexDump(uint64_t address, const std::string& bytes) {
  constexpr size_t kPerLine = 16;
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += kPerLine) {
    std::string hex;
    std::string characters;
    for (size_t i = 0; i < kPerLine; ++i) {
      if (i == kPerLine / 2) hex += ' ';
      if (at + i >= bytes.size()) {
        hex += "   ";
        continue;
      }
      const auto byte = static_cast<unsigned char>(bytes[at + i]);
      hex += fmt::format("{:02x} ", byte);
      characters += std::isprint(byte) != 0 && byte < 0x80 ? static_cast<char>(byte) : '.';
    }
    text += fmt::format("{:08x}  {} |{}|\n", address + at, hex, characters);
  }
  return text;
}

}  // namespace mmlab
