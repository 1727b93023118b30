#include <fmt/core.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/memory_text.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

constexpr int kListPage = 1000;

std::string ProcessName(const std::string& machine, int pid) { return absl::StrCat("machines/", machine, "/processes/", pid); }

v1::AddressSpace GetAddressSpace(Session& session, const std::string& machine, int pid) {
  v1::GetAddressSpaceRequest request;
  request.set_name(ProcessName(machine, pid));
  v1::GetAddressSpaceResponse response;
  session.Call(*session.connection().memory, &v1::MemoryService::Stub::GetAddressSpace, request, &response);
  return response.address_space();
}

void DescribeMm(Session& session, const std::string& machine, int pid) {
  const v1::AddressSpace mm = GetAddressSpace(session, machine, pid);
  if (!PrintStructured(session.options(), mm)) fmt::print("{}", AddressSpaceText(mm));
}

void GetVmas(Session& session, const std::string& machine, int pid) {
  v1::ListVmAreaStructsRequest request;
  request.set_parent(ProcessName(machine, pid));
  request.set_page_size(kListPage);
  v1::ListVmAreaStructsResponse all;
  do {
    v1::ListVmAreaStructsResponse page;
    session.Call(*session.connection().memory, &v1::MemoryService::Stub::ListVmAreaStructs, request, &page);
    all.mutable_vm_areas()->MergeFrom(page.vm_areas());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (PrintStructured(session.options(), all)) return;
  fmt::print("{}", VmAreaStructsText({all.vm_areas().begin(), all.vm_areas().end()}, session.options().output == OutputFormat::kWide));
}

struct PagemapOptions {
  std::string machine;
  int pid = 0;
  std::string start = "0";
  std::string end = "0";
};

uint64_t AddressFrom(const std::string& text) {
  const auto address = ParseSize(text);
  if (!address) Fail(kExitUsage, "address: a number, not " + text);
  return *address;
}

void GetPagemap(Session& session, const PagemapOptions& options) {
  v1::ListPagemapRequest request;
  request.set_parent(ProcessName(options.machine, options.pid));
  request.set_start_address(AddressFrom(options.start));
  request.set_end_address(AddressFrom(options.end));
  request.set_page_size(kListPage);
  v1::ListPagemapResponse all;
  do {
    v1::ListPagemapResponse page;
    session.Call(*session.connection().memory, &v1::MemoryService::Stub::ListPagemap, request, &page);
    all.mutable_entries()->MergeFrom(page.entries());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (!PrintStructured(session.options(), all)) fmt::print("{}", PagemapText({all.entries().begin(), all.entries().end()}));
}

struct ReadOptions {
  std::string machine, address, length = "256";
  int pid = 0;
  bool is_virtual = false;
  bool raw = false;
};

void ReadMemory(Session& session, const ReadOptions& options) {
  const auto length = ParseSize(options.length);
  if (!length) Fail(kExitUsage, "--length: a number, not " + options.length);
  v1::ReadMemoryRequest request;
  request.set_machine("machines/" + options.machine);
  request.set_space(options.is_virtual || options.pid != 0 ? v1::MEMORY_SPACE_VIRTUAL : v1::MEMORY_SPACE_PHYSICAL);
  request.set_pid(options.pid);
  request.set_address(AddressFrom(options.address));
  request.set_length_bytes(*length);
  v1::ReadMemoryResponse response;
  session.Call(*session.connection().memory, &v1::MemoryService::Stub::ReadMemory, request, &response);
  if (PrintStructured(session.options(), response)) return;
  if (options.raw) {
    std::fwrite(response.data().data(), 1, response.data().size(), stdout);
  } else {
    fmt::print("{}", HexDump(request.address(), response.data()));
  }
  if (!response.reason().empty()) {
    fmt::print(options.raw ? stderr : stdout, "stopped: {}\n", response.reason());
  }
}

void AddRead(CLI::App* memory, Session& session) {
  const auto options = std::make_shared<ReadOptions>();
  CLI::App* read = memory->add_subcommand("read", "Read bytes of physical memory, or at virtual addresses without any fault");
  read->add_option("machine", options->machine, "Machine")->required();
  read->add_option("address", options->address, "First address")->required();
  read->add_option("--length", options->length, "How many bytes, at most 1M")->capture_default_str();
  read->add_flag("--virtual", options->is_virtual, "The address is the kernel's, not physical");
  read->add_option("--pid", options->pid, "The address is virtual, in the tables of this process");
  read->add_flag("--raw", options->raw, "The bytes themselves instead of a hex dump");
  read->footer("Examples:\n  mmlab memory read lab1 0x1000000 --length 64\n  mmlab memory read lab1 0x8048000 --pid 1");
  read->callback([options, &session] { ReadMemory(session, *options); });
}

void AddWrite(CLI::App* memory, Session& session) {
  struct Options {
    std::string machine, address, text, hex;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* write = memory->add_subcommand("write", "Write bytes to RAM at a physical address, as a device's DMA does");
  write->add_option("machine", options->machine, "Machine")->required();
  write->add_option("address", options->address, "First physical address")->required();
  write->add_option("--text", options->text, "What to write");
  write->add_option("--hex", options->hex, "What to write, as hexadecimal digits: \"de ad be ef\"");
  write->footer("Example:\n  mmlab memory write lab1 0x1000000 --hex \"de ad be ef\"");
  write->callback([options, &session] {
    if (options->text.empty() == options->hex.empty()) Fail(kExitUsage, "memory write: give either --text or --hex");
    const std::string digits = absl::StrReplaceAll(options->hex, {{" ", ""}, {":", ""}});
    if (digits.size() % 2 != 0 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      Fail(kExitUsage, "--hex: pairs of hexadecimal digits, not " + options->hex);
    }
    v1::WritePhysicalMemoryRequest request;
    request.set_machine("machines/" + options->machine);
    request.set_address(AddressFrom(options->address));
    request.set_data(options->text.empty() ? absl::HexStringToBytes(digits) : options->text);
    request.set_explain(session.options().explain);
    v1::WritePhysicalMemoryResponse response;
    session.Call(*session.connection().memory, &v1::MemoryService::Stub::WritePhysicalMemory, request, &response);
    if (!PrintStructured(session.options(), response.outcome())) fmt::print("{}", OutcomeText("write_physical_memory", response.outcome()));
  });
}

}  // namespace

void DescribeVmaStore(Session& session, const std::string& machine, int pid, const std::string& store) {
  v1::ListVmaStoreNodesRequest request;
  request.set_parent(ProcessName(machine, pid));
  request.set_kind(store == "maple" ? v1::VMA_STORE_KIND_MAPLE : v1::VMA_STORE_KIND_RBTREE);
  request.set_page_size(kListPage);
  v1::ListVmaStoreNodesResponse all;
  do {
    v1::ListVmaStoreNodesResponse page;
    session.Call(*session.connection().memory, &v1::MemoryService::Stub::ListVmaStoreNodes, request, &page);
    request.set_page_token(page.next_page_token());
    page.clear_next_page_token();
    all.MergeFrom(page);
  } while (!request.page_token().empty());
  if (PrintStructured(session.options(), all)) return;
  fmt::print("{}", VmaStoreText({all.nodes().begin(), all.nodes().end()}, all));
}

std::string MmText(Session& session, const std::string& machine, int pid) {
  return AddressSpaceText(GetAddressSpace(session, machine, pid));
}

void TranslateVirtual(Session& session, const VirtualAddressQuery& query) {
  v1::TranslateVirtualAddressRequest request;
  request.set_machine("machines/" + query.machine);
  request.set_pid(query.pid);
  request.set_address(AddressFrom(query.address));
  request.set_kernel_mode(query.kernel_mode || query.pid == 0);
  request.set_access(query.access == "write"  ? v1::TRANSLATION_ACCESS_WRITE
                     : query.access == "exec" ? v1::TRANSLATION_ACCESS_EXECUTE
                                              : v1::TRANSLATION_ACCESS_READ);
  v1::TranslateVirtualAddressResponse response;
  session.Call(*session.connection().memory, &v1::MemoryService::Stub::TranslateVirtualAddress, request, &response);
  if (PrintStructured(session.options(), response)) return;
  fmt::print("{}", TranslationText(response, session.options().output == OutputFormat::kWide));
}

void AddMemoryCommands(CLI::App& app, Session& session) {
  struct Options {
    std::string machine;
    int pid = 0;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* mm = app.get_subcommand("describe")->add_subcommand("mm", "The address space of a process: every field of mm_struct");
  mm->add_option("machine", options->machine, "Machine")->required();
  mm->add_option("pid", options->pid, "Process id")->required();
  mm->callback([options, &session] { DescribeMm(session, options->machine, options->pid); });
  CLI::App* vmas = app.get_subcommand("get")->add_subcommand("vmas", "VMAs of a process: every field of vm_area_struct, more with -o wide");
  vmas->add_option("machine", options->machine, "Machine")->required();
  vmas->add_option("pid", options->pid, "Process id")->required();
  vmas->callback([options, &session] { GetVmas(session, options->machine, options->pid); });
  const auto pages = std::make_shared<PagemapOptions>();
  CLI::App* pagemap = app.get_subcommand("get")->add_subcommand("pagemap", "Pages of a process and their frames: /proc/PID/pagemap");
  pagemap->add_option("machine", pages->machine, "Machine")->required();
  pagemap->add_option("pid", pages->pid, "Process id")->required();
  pagemap->add_option("--start", pages->start, "First address")->capture_default_str();
  pagemap->add_option("--end", pages->end, "First address behind the range; 0 = the end of user space")->capture_default_str();
  pagemap->footer("Example:\n  mmlab get pagemap lab1 2 --start 0x8048000 --end 0x804f000");
  pagemap->callback([pages, &session] { GetPagemap(session, *pages); });
  CLI::App* memory = app.add_subcommand("memory", "Read and write the bytes of memory");
  memory->require_subcommand(1);
  AddRead(memory, session);
  AddWrite(memory, session);
}

}  // namespace mmlab
