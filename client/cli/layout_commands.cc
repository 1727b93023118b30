#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/capture.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

namespace fs = std::filesystem;

std::string MachineOf(const std::string& id) { return "machines/" + id; }

void GetLayout(Session& session, const std::string& machine, int page_size, int va_bits) {
  v1::GetKernelLayoutRequest request;
  request.set_machine(MachineOf(machine));
  request.set_page_size_bytes(page_size);
  request.set_va_bits(va_bits);
  v1::GetKernelLayoutResponse response;
  session.Call(*session.connection().layouts, &v1::LayoutService::Stub::GetKernelLayout, request, &response);
  if (!PrintStructured(session.options(), response)) fmt::print("{}", response.text());
}

void GetDomains(Session& session, const std::string& machine) {
  v1::GetAddressDomainsRequest request;
  request.set_machine(MachineOf(machine));
  v1::GetAddressDomainsResponse response;
  session.Call(*session.connection().layouts, &v1::LayoutService::Stub::GetAddressDomains, request, &response);
  if (PrintStructured(session.options(), response)) return;
  std::vector<std::vector<std::string>> rows;
  for (const v1::AddressWindow& w : response.windows()) {
    const std::string target = w.target() == v1::ADDRESS_DOMAIN_DRAM ? "DRAM " : "PCI ";
    rows.push_back({w.controller(), fmt::format("{:#x}-{:#x}", w.cpu_address(), w.cpu_address() + w.length_bytes() - 1),
                    target + HexText(w.target_address()), w.name()});
  }
  fmt::print("{}\n", TableText({"CONTROLLER", "CPU", "TARGET", "NAME"}, rows));
  rows.clear();
  for (const v1::DmaMask& mask : response.masks()) {
    rows.push_back({absl::StrCat(mask.bits()), BytesText(static_cast<int64_t>(mask.reachable_bytes())),
                    mask.zones().empty() ? "-" : absl::StrJoin(mask.zones(), ","), mask.advice()});
  }
  fmt::print("{}", TableText({"DMA BITS", "RAM", "ZONES", "EFFECT"}, rows));
}

v1::AddressDomain DomainOf(const std::string& name) {
  v1::AddressDomain domain = v1::ADDRESS_DOMAIN_UNSPECIFIED;
  std::string upper = name;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  v1::AddressDomain_Parse("ADDRESS_DOMAIN_" + upper, &domain);
  return domain;
}

struct TranslateOptions {
  VirtualAddressQuery query;
  std::string from, to;
};

// Between the domains in which a physical address can be meant.
void TranslateDomain(Session& session, const TranslateOptions& options) {
  const auto address = ParseSize(options.query.address);
  if (!address) Fail(kExitUsage, "address: a number, not " + options.query.address);
  v1::TranslateAddressRequest request;
  request.set_machine(MachineOf(options.query.machine));
  request.set_from(DomainOf(options.from.empty() ? "cpu" : options.from));
  request.set_to(DomainOf(options.to.empty() ? "dram" : options.to));
  request.set_address(*address);
  v1::TranslateAddressResponse response;
  session.Call(*session.connection().layouts, &v1::LayoutService::Stub::TranslateAddress, request, &response);
  if (PrintStructured(session.options(), response)) return;
  fmt::print("{}\n", response.mapped() ? HexText(response.address()) : "nothing answers");
  for (const std::string& step : response.steps()) fmt::print("  {}\n", step);
}

void AddTranslate(CLI::App& app, Session& session) {
  const auto options = std::make_shared<TranslateOptions>();
  CLI::App* translate = app.add_subcommand(
      "translate", "Translate a virtual address level by level, or a physical one between the CPU, DRAM and PCI domains");
  translate->add_option("machine", options->query.machine, "Machine")->required();
  translate->add_option("address", options->query.address, "Address")->required();
  CLI::Option* pid = translate->add_option("--pid", options->query.pid, "Process whose tables are loaded, for user addresses");
  CLI::Option* access = translate->add_option("--access", options->query.access, "read, write or exec: which fault would it raise")
                            ->check(CLI::IsMember({"read", "write", "exec"}))
                            ->capture_default_str();
  CLI::Option* kernel = translate->add_flag("--kernel", options->query.kernel_mode, "With --pid: the kernel makes the access");
  const auto domains = CLI::IsMember({"cpu", "dram", "pci"});
  for (auto& [flag, value] : {std::pair{"--from", &options->from}, std::pair{"--to", &options->to}}) {
    translate->add_option(flag, *value, "The address is physical: cpu, dram or pci")
        ->check(domains)
        ->excludes(pid)
        ->excludes(access)
        ->excludes(kernel);
  }
  translate->footer(
      "Examples:\n  mmlab translate lab1 0x8048000 --pid 1 --access write -o wide\n  mmlab translate lab1 0xc1000000\n"
      "  mmlab translate lab1 0x100000000 --from cpu --to dram");
  translate->callback([options, &session] {
    if (options->from.empty() && options->to.empty()) return TranslateVirtual(session, options->query);
    TranslateDomain(session, *options);
  });
}

void AddDmesg(CLI::App& app, Session& session) {
  struct Options {
    std::string machine;
    bool why = false;
    bool raw = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* dmesg = app.add_subcommand("dmesg", "Print what a machine's kernel said of memory while it booted, and what it logged since");
  dmesg->add_option("machine", options->machine, "Machine")->required();
  dmesg->add_flag("--why", options->why, "With the stage of boot and where the numbers come from");
  dmesg->add_flag("-r,--raw", options->raw, "With the level of each line in front");
  dmesg->footer("Example:\n  mmlab dmesg lab1 | tail -30    # the report of the last OOM kill");
  dmesg->callback([options, &session] {
    v1::GetBootLogRequest request;
    request.set_machine(MachineOf(options->machine));
    v1::GetBootLogResponse response;
    session.Call(*session.connection().layouts, &v1::LayoutService::Stub::GetBootLog, request, &response);
    v1::ReadKernelLogRequest log_request;
    log_request.set_machine(request.machine());
    log_request.set_raw(options->raw);
    v1::ReadKernelLogResponse log;
    session.Call(*session.connection().proc, &v1::ProcService::Stub::ReadKernelLog, log_request, &log);
    if (session.options().output == OutputFormat::kJson || session.options().output == OutputFormat::kYaml) {
      for (absl::string_view line : absl::StrSplit(log.content(), '\n', absl::SkipEmpty()))
        response.add_lines()->set_text(std::string(line));
      PrintStructured(session.options(), response);
      return;
    }
    for (const v1::BootLogLine& line : response.lines()) {
      fmt::print("{}[    0.000000] {}\n", options->raw ? "<6>" : "", line.text());
      if (options->why) fmt::print("    {}: {}\n", v1::BootStage_Name(line.stage()).substr(sizeof("BOOT_STAGE_") - 1), line.why());
    }
    std::fwrite(log.content().data(), 1, log.content().size(), stdout);
  });
}

void AddExplainBoot(CLI::App& app, Session& session) {
  const auto machine = std::make_shared<std::string>();
  CLI::App* boot = app.get_subcommand("explain")->add_subcommand(
      "boot", "How a machine's memory came to be: firmware's map, zones, reserves, watermarks, with the numbers they come from");
  boot->add_option("machine", *machine, "Machine")->required();
  boot->callback([machine, &session] {
    v1::GetBootLogRequest request;
    request.set_machine(MachineOf(*machine));
    request.set_explain(true);
    v1::GetBootLogResponse response;
    session.Call(*session.connection().layouts, &v1::LayoutService::Stub::GetBootLog, request, &response);
    if (!PrintStructured(session.options(), response.explanation())) fmt::print("{}", response.explanation().text());
  });
}

void WriteFile(const fs::path& path, const std::string& content) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  std::ofstream out(path, std::ios::binary);
  out << content;
  if (!out.flush()) Fail(kExitLocalFile, path.string() + ": can't be written");
}

std::string LayoutJson(const v1::GetKernelLayoutResponse& layout) {
  nlohmann::ordered_json json;
  for (const v1::LayoutValue& value : layout.values()) {
    if (value.kind() == v1::LayoutValue::KIND_COUNT && value.value() < 1 << 20) {
      json[value.name()] = value.value();
    } else {
      json[value.name()] = HexText(value.value());
    }
  }
  return json.dump(1) + "\n";
}

// The machine's /proc, boot log and layout, under the names of a capture. How many files were written.
int Export(Session& session, const std::string& machine, const fs::path& out) {
  int files = 0;
  const auto write = [&](const std::string& name, const std::string& content) {
    WriteFile(out / name, content);
    ++files;
  };
  v1::ListProcFilesRequest list;
  list.set_parent(machine);
  list.set_page_size(1000);
  do {
    v1::ListProcFilesResponse page;
    session.Call(*session.connection().proc, &v1::ProcService::Stub::ListProcFiles, list, &page);
    for (const std::string& path : page.paths()) {
      v1::ReadProcFileRequest read;
      read.set_machine(machine);
      read.set_path(path);
      v1::ReadProcFileResponse content;
      session.Call(*session.connection().proc, &v1::ProcService::Stub::ReadProcFile, read, &content);
      write(CaptureFileName(path), content.content());
    }
    list.set_page_token(page.next_page_token());
  } while (!list.page_token().empty());
  v1::GetBootLogRequest log_request;
  log_request.set_machine(machine);
  v1::GetBootLogResponse log;
  session.Call(*session.connection().layouts, &v1::LayoutService::Stub::GetBootLog, log_request, &log);
  write("dmesg", log.text());
  v1::GetKernelLayoutRequest layout_request;
  layout_request.set_machine(machine);
  v1::GetKernelLayoutResponse layout;
  session.Call(*session.connection().layouts, &v1::LayoutService::Stub::GetKernelLayout, layout_request, &layout);
  write("layout", layout.text());
  write("layout.json", LayoutJson(layout));
  return files;
}

void BootCapture(const GlobalOptions& global, const std::string& folder, const std::string& out) {
  const absl::StatusOr<v1::MachineSpec> spec = SpecFromCapture(folder);
  if (!spec.ok()) Fail(kExitLocalFile, std::string(spec.status().message()));
  GlobalOptions options = global;
  options.in_process = true;
  Session session(options);
  v1::CreateMachineRequest request;
  request.set_machine_id("capture");
  *request.mutable_spec() = *spec;
  v1::CreateMachineResponse response;
  session.Call(*session.connection().machines, &v1::MachineService::Stub::CreateMachine, request, &response);
  if (!out.empty()) {
    const int files = Export(session, response.machine().name(), out);
    fmt::print("{} booted, {} files in {}\n", folder, files, out);
    return;
  }
  v1::GetBootLogRequest log_request;
  log_request.set_machine(response.machine().name());
  v1::GetBootLogResponse log;
  session.Call(*session.connection().layouts, &v1::LayoutService::Stub::GetBootLog, log_request, &log);
  fmt::print("{}", log.text());
}

void AddBootCapture(CLI::App& app, Session& session) {
  struct Options {
    std::string capture, out;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* boot = app.get_subcommand("boot");
  boot->require_subcommand(0, 1);
  boot->add_option("--capture", options->capture,
                   "Boot inside this command from a folder of files of a real machine: what its firmware and command line say");
  boot->add_option("--export", options->out, "With --capture: write the machine's /proc, boot log and layout there")->needs("--capture");
  boot->footer("Examples:\n  mmlab boot machine lab1\n  mmlab boot --capture captures/686-1G --export out");
  boot->callback([boot, options, &session] {
    if (!options->capture.empty()) return BootCapture(session.options(), options->capture, options->out);
    if (boot->get_subcommands().empty()) Fail(kExitUsage, "boot: a machine, or --capture");
  });
}

}  // namespace

void AddLayoutCommands(CLI::App& app, Session& session) {
  CLI::App* get = app.get_subcommand("get");
  const auto machine = std::make_shared<std::string>();
  CLI::App* layout = get->add_subcommand("layout", "Address-space layout of a machine's kernel, with the kernel's names");
  layout->add_option("machine", *machine, "Machine")->required();
  const auto built = std::make_shared<std::pair<int, int>>(0, 0);
  layout->add_option("--page-size", built->first, "ARM64: as if built for pages of 4096, 16384 or 65536 bytes");
  layout->add_option("--va-bits", built->second, "ARM64: as if built for addresses of so many bits");
  layout->callback([machine, built, &session] { GetLayout(session, *machine, built->first, built->second); });
  CLI::App* domains = get->add_subcommand("domains", "Address windows of a machine: CPU, DRAM, PCI; what DMA masks reach");
  domains->add_option("machine", *machine, "Machine")->required();
  domains->callback([machine, &session] { GetDomains(session, *machine); });
  AddDmesg(app, session);
  AddTranslate(app, session);
  AddExplainBoot(app, session);
  AddBootCapture(app, session);
}

}  // namespace mmlab
