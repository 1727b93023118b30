#include <fmt/core.h>
#include <google/protobuf/util/json_util.h>
#include <yaml-cpp/yaml.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/capture.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

constexpr int kListPage = 1000;

// What `create machine` and `boot machine` take to say how the machine is made.
struct SpecFlags {
  std::string preset;
  std::string ram;
  std::string layout;
  int cpus = 0;
  std::string slab_allocator;
  uint64_t seed = 0;
  std::vector<std::string> sysctls;
  std::string firmware;
  std::string iomem;
  std::string command_line;
  std::string file;

  void AddTo(CLI::App* command) {
    command->add_option("--preset", preset, "Recorded machine to be like: see mmlab get presets");
    command->add_option("--layout", layout, "x86_32, x86_32_pae or arm64, with --ram instead of a preset");
    command->add_option("--ram", ram, "RAM: 512M, 4G");
    command->add_option("--cpus", cpus, "CPUs");
    command->add_option("--slab-allocator", slab_allocator, "slub (what else is not said), slab or slob");
    command->add_option("--seed", seed, "Seed of everything random in the machine");
    command->add_option("--sysctl", sysctls, "NAME=VALUE, repeatable: vm.overcommit_memory=2");
    command->add_option("--firmware", firmware, "The firmware's map, from a file: BIOS-e820 lines of a log, ARM64's memory banks of one");
    command->add_option("--iomem", iomem, "A /proc/iomem, from a file: RAM, devices, windows, kernel sections");
    command->add_option("--command-line", command_line, "Of the kernel: mem=, memmap=, movablecore=, cma=, vmalloc=, slub_debug=, ...");
    command->add_option("-f,--file", file, "MachineSpec as JSON or YAML; - reads stdin. Flags win over the file");
  }
  v1::MachineSpec Spec() const;
};

std::string ReadAll(const std::string& path) {
  if (path == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream in(path, std::ios::binary);
  if (!in) Fail(kExitLocalFile, path + ": can't be read");
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// YAML as JSON text, for protobuf's own JSON parser; JSON is YAML too.
std::string JsonFromYaml(const std::string& path, const std::string& text) {
  try {
    YAML::Emitter emitter;
    emitter.SetMapFormat(YAML::Flow);
    emitter.SetSeqFormat(YAML::Flow);
    emitter.SetStringFormat(YAML::DoubleQuoted);
    emitter << YAML::Load(text);
    return emitter.c_str();
  } catch (const YAML::Exception& error) {
    Fail(kExitLocalFile, absl::StrCat(path, ": ", error.what()));
  }
}

v1::MachineSpec SpecFlags::Spec() const {
  v1::MachineSpec spec;
  if (!file.empty()) {
    std::string text = ReadAll(file);
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) Fail(kExitLocalFile, file + ": is empty");
    if (text[text.find_first_not_of(" \t\r\n")] != '{') text = JsonFromYaml(file, text);
    const auto status = google::protobuf::util::JsonStringToMessage(text, &spec);
    if (!status.ok()) Fail(kExitLocalFile, absl::StrCat(file, ": ", std::string(status.message())));
  }
  if (!preset.empty()) spec.set_preset(preset);
  if (!layout.empty()) {
    v1::Layout value = v1::LAYOUT_UNSPECIFIED;
    std::string name = "LAYOUT_";
    for (const char c : layout) name += static_cast<char>(toupper(c));
    if (!v1::Layout_Parse(name, &value)) Fail(kExitUsage, "--layout: x86_32, x86_32_pae or arm64, not " + layout);
    spec.set_layout(value);
  }
  if (!ram.empty()) {
    const auto bytes = ParseSize(ram);
    if (!bytes) Fail(kExitUsage, "--ram: a number with K, M, G or T, not " + ram);
    spec.set_ram_bytes(static_cast<int64_t>(*bytes));
  }
  if (!firmware.empty()) {
    const absl::Status added = AddFirmwareRanges(ReadAll(firmware), spec);
    if (!added.ok()) Fail(kExitLocalFile, absl::StrCat(firmware, ": ", added.message()));
  }
  if (!iomem.empty()) spec.set_iomem_text(ReadAll(iomem));
  if (!command_line.empty()) spec.set_command_line(command_line);
  if (cpus != 0) spec.set_cpus(cpus);
  if (!slab_allocator.empty()) {
    v1::SlabAllocator allocator = v1::SLAB_ALLOCATOR_UNSPECIFIED;
    const std::string name = "SLAB_ALLOCATOR_" + absl::AsciiStrToUpper(slab_allocator);
    if (!v1::SlabAllocator_Parse(name, &allocator)) Fail(kExitUsage, "--slab-allocator: slub, slab or slob, not " + slab_allocator);
    spec.set_slab_allocator(allocator);
  }
  if (seed != 0) spec.set_seed(seed);
  for (const std::string& sysctl : sysctls) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(sysctl, absl::MaxSplits('=', 1));
    (*spec.mutable_sysctls())[parts.first] = parts.second;
  }
  return spec;
}

std::string LayoutText(v1::Layout layout) {
  std::string text = v1::Layout_Name(layout).substr(sizeof("LAYOUT_") - 1);
  for (char& c : text) c = static_cast<char>(tolower(c));
  return text;
}

std::vector<std::string> MachineRow(const v1::Machine& machine, bool wide) {
  const int64_t now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string state = v1::Machine::State_Name(machine.state()).substr(sizeof("STATE_") - 1);
  for (size_t i = 1; i < state.size(); ++i) state[i] = static_cast<char>(tolower(state[i]));
  std::vector<std::string> row = {LastPart(machine.name()),
                                  state,
                                  LayoutText(machine.spec().layout()),
                                  BytesText(machine.memory_total_bytes()),
                                  BytesText(machine.memory_free_bytes()),
                                  absl::StrCat(machine.process_count())};
  if (wide) {
    row.push_back(machine.spec().preset().empty() ? "-" : machine.spec().preset());
    row.push_back(absl::StrCat(std::max(machine.spec().cpus(), 1)));
    row.push_back(absl::StrCat(machine.operations_applied()));
    row.push_back(BytesText(machine.host_memory_bytes()));
  }
  row.push_back(AgeText(now - machine.create_time().seconds()));
  return row;
}

void PrintMachines(const GlobalOptions& options, const std::vector<v1::Machine>& machines) {
  if (options.output == OutputFormat::kName) {
    for (const v1::Machine& machine : machines) fmt::print("{}\n", machine.name());
    return;
  }
  const bool wide = options.output == OutputFormat::kWide;
  std::vector<std::string> headings = {"NAME", "STATE", "LAYOUT", "MEMORY", "FREE", "PROCESSES"};
  if (wide) headings.insert(headings.end(), {"PRESET", "CPUS", "OPERATIONS", "HOST-MEMORY"});
  headings.push_back("AGE");
  std::vector<std::vector<std::string>> rows;
  for (const v1::Machine& machine : machines) rows.push_back(MachineRow(machine, wide));
  if (rows.empty()) {
    fmt::print(stderr, "No machines. Make one: mmlab create machine lab1 --preset arm64-1G\n");
    return;
  }
  fmt::print("{}", TableText(headings, rows));
}

v1::Machine GetMachine(Session& session, const std::string& id) {
  v1::GetMachineRequest request;
  request.set_name("machines/" + id);
  v1::GetMachineResponse response;
  session.Call(*session.connection().machines, &v1::MachineService::Stub::GetMachine, request, &response);
  return response.machine();
}

void GetMachines(Session& session, const std::string& id) {
  v1::ListMachinesResponse all;
  if (!id.empty()) {
    const v1::Machine machine = GetMachine(session, id);
    if (PrintStructured(session.options(), machine)) return;
    return PrintMachines(session.options(), {machine});
  }
  v1::ListMachinesRequest request;
  request.set_page_size(kListPage);
  do {
    v1::ListMachinesResponse page;
    session.Call(*session.connection().machines, &v1::MachineService::Stub::ListMachines, request, &page);
    all.mutable_machines()->MergeFrom(page.machines());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (PrintStructured(session.options(), all)) return;
  PrintMachines(session.options(), {all.machines().begin(), all.machines().end()});
}

void GetPresets(Session& session) {
  v1::ListPresetsRequest request;
  request.set_page_size(kListPage);
  v1::ListPresetsResponse response;
  session.Call(*session.connection().machines, &v1::MachineService::Stub::ListPresets, request, &response);
  if (PrintStructured(session.options(), response)) return;
  std::vector<std::vector<std::string>> rows;
  for (const v1::Preset& preset : response.presets()) {
    if (session.options().output == OutputFormat::kName) {
      fmt::print("{}\n", preset.name());
      continue;
    }
    int64_t ram = 0;
    for (const v1::FirmwareRange& range : preset.spec().firmware_ranges()) {
      if (range.type() == v1::FirmwareRange::TYPE_RAM) ram += static_cast<int64_t>(range.end_address() - range.start_address());
    }
    rows.push_back({preset.name(), LayoutText(preset.spec().layout()), BytesText(ram), absl::StrCat(std::max(preset.spec().cpus(), 1)),
                    preset.spec().kernel().release()});
  }
  if (!rows.empty()) fmt::print("{}", TableText({"NAME", "LAYOUT", "RAM", "CPUS", "KERNEL"}, rows));
}

void GetProcesses(Session& session, const std::string& machine) {
  v1::ListProcessesRequest request;
  request.set_parent("machines/" + machine);
  request.set_page_size(kListPage);
  v1::ListProcessesResponse all;
  do {
    v1::ListProcessesResponse page;
    session.Call(*session.connection().processes, &v1::ProcessService::Stub::ListProcesses, request, &page);
    all.mutable_processes()->MergeFrom(page.processes());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (PrintStructured(session.options(), all)) return;
  std::vector<std::vector<std::string>> rows;
  for (const v1::Process& process : all.processes()) {
    if (session.options().output == OutputFormat::kName) {
      fmt::print("{}\n", process.name());
      continue;
    }
    rows.push_back({absl::StrCat(process.pid()), absl::StrCat(process.parent_pid()), process.comm(), absl::StrCat(process.uid()),
                    BytesText(process.status().vm_size_bytes()), BytesText(process.status().vm_rss_bytes()),
                    absl::StrCat(process.minor_faults()), absl::StrCat(process.major_faults())});
  }
  if (!rows.empty()) fmt::print("{}", TableText({"PID", "PPID", "COMMAND", "UID", "VIRT", "RSS", "MINFLT", "MAJFLT"}, rows));
}

void GetFrames(Session& session, const std::string& machine, uint64_t pfn, int count) {
  v1::ListFramesRequest request;
  request.set_parent("machines/" + machine);
  request.set_first_pfn(pfn);
  request.set_page_size(count);
  v1::ListFramesResponse response;
  session.Call(*session.connection().pages, &v1::PageService::Stub::ListFrames, request, &response);
  if (PrintStructured(session.options(), response)) return;
  std::vector<std::vector<std::string>> rows;
  for (const v1::Frame& frame : response.frames()) {
    std::string flags;
    for (const std::string& flag : frame.flags()) absl::StrAppend(&flags, flags.empty() ? "" : ",", flag);
    rows.push_back({HexText(frame.pfn()), frame.zone().empty() ? "-" : frame.zone(), frame.state(), absl::StrCat(frame.reference_count()),
                    absl::StrCat(frame.map_count()), absl::StrCat(frame.order()), frame.migrate_type(),
                    frame.lru().empty() ? "-" : frame.lru(), HexText(frame.index()), flags.empty() ? "-" : flags});
  }
  fmt::print("{}", TableText({"PFN", "ZONE", "STATE", "REFS", "MAPS", "ORDER", "MIGRATETYPE", "LRU", "INDEX", "FLAGS"}, rows));
}

void DescribeFrame(Session& session, const std::string& machine, uint64_t pfn) {
  v1::ListFramesRequest request;
  request.set_parent("machines/" + machine);
  request.set_first_pfn(pfn);
  v1::ListFramesResponse response;
  session.Call(*session.connection().pages, &v1::PageService::Stub::ListFrames, request, &response);
  const v1::Frame& frame = response.frames(0);
  if (PrintStructured(session.options(), frame)) return;
  const auto or_none = [](const std::string& text) { return text.empty() ? std::string("-") : text; };
  std::string flags;
  for (const std::string& flag : frame.flags()) absl::StrAppend(&flags, flags.empty() ? "" : " ", flag);
  fmt::print("Frame:       {} ({})\nZone:        {}, node {}, section {}\nState:       {}\nReferences:  {}, {} entries map it\n",
             HexText(frame.pfn()), frame.pfn(), or_none(frame.zone()), frame.node(), frame.section(), frame.state(),
             frame.reference_count(), frame.map_count());
  fmt::print("Flags:       {}\npage->flags: {}\nkpageflags:  {}\n", or_none(flags), HexText(frame.raw_flags()),
             HexText(frame.kpageflags()));
  fmt::print("Mapping:     {} {}, index {}\nLRU list:    {}\nCgroup:      {}\n", or_none(frame.mapping()), frame.mapping_id(),
             HexText(frame.index()), or_none(frame.lru()), frame.memory_cgroup());
  fmt::print("Block:       starts at {}, order {}, compound {}, type {}, private {}\nPage block:  {}\n", HexText(frame.head_pfn()),
             frame.order(), or_none(frame.compound()), or_none(frame.page_type()), frame.private_value(), or_none(frame.migrate_type()));
}

void DescribeMachine(Session& session, const std::string& id) {
  const v1::Machine machine = GetMachine(session, id);
  if (PrintStructured(session.options(), machine)) return;
  fmt::print("Name:        {}\nLayout:      {}\nPreset:      {}\nKernel:      {} {}\nCPUs:        {}\n", LastPart(machine.name()),
             LayoutText(machine.spec().layout()), machine.spec().preset(), machine.spec().kernel().release(),
             machine.spec().kernel().machine(), std::max(machine.spec().cpus(), 1));
  fmt::print(
      "Memory:      {} KiB, {} KiB free\nProcesses:   {}\nOperations:  {}\nState hash:  {:016x}\nHost memory: {} KiB\n\nZones (pages):\n",
      machine.memory_total_bytes() / 1024, machine.memory_free_bytes() / 1024, machine.process_count(), machine.operations_applied(),
      machine.state_hash(), machine.host_memory_bytes() / 1024);
  std::vector<std::vector<std::string>> rows;
  for (const v1::Zone& zone : machine.zones()) {
    rows.push_back({zone.name(), HexText(zone.start_pfn()), absl::StrCat(zone.spanned_pages()), absl::StrCat(zone.present_pages()),
                    absl::StrCat(zone.managed_pages()), absl::StrCat(zone.free_pages()), absl::StrCat(zone.min_pages()),
                    absl::StrCat(zone.low_pages()), absl::StrCat(zone.high_pages())});
  }
  fmt::print("{}", TableText({"ZONE", "START-PFN", "SPANNED", "PRESENT", "MANAGED", "FREE", "MIN", "LOW", "HIGH"}, rows));
}

void DescribeProcess(Session& session, const std::string& machine, int pid) {
  v1::GetProcessRequest request;
  request.set_name(absl::StrCat("machines/", machine, "/processes/", pid));
  request.set_view(v1::PROCESS_VIEW_FULL);
  v1::GetProcessResponse response;
  session.Call(*session.connection().processes, &v1::ProcessService::Stub::GetProcess, request, &response);
  const v1::Process& process = response.process();
  if (PrintStructured(session.options(), process)) return;
  const v1::MemoryStatus& status = process.status();
  fmt::print("Pid:     {} (parent {})\nCommand: {}\nUid:     {}\nFaults:  {} minor, {} major\nOOM:     score {}\n", process.pid(),
             process.parent_pid(), process.comm(), process.uid(), process.minor_faults(), process.major_faults(), process.oom_score());
  fmt::print("Virtual: {} KiB (peak {})\nResident: anon {} KiB, file {} KiB, shmem {} KiB\nPage tables: {} KiB\n\n",
             status.vm_size_bytes() / 1024, status.vm_peak_bytes() / 1024, process.resident().anon_bytes() / 1024,
             process.resident().file_bytes() / 1024, process.resident().shmem_bytes() / 1024, status.vm_pte_bytes() / 1024);
  if (!process.kernel_thread()) fmt::print("{}\n", MmText(session, machine, pid));
  std::vector<std::vector<std::string>> rows;
  for (const v1::VmArea& area : process.vm_areas()) {
    rows.push_back({fmt::format("{:x}-{:x}", area.start_address(), area.end_address()), area.permissions(),
                    BytesText(static_cast<int64_t>(area.end_address() - area.start_address())), BytesText(area.smaps().rss_bytes()),
                    area.vm_flags(), area.backing()});
  }
  fmt::print("{}", TableText({"ADDRESSES", "PERM", "SIZE", "RSS", "FLAGS", "BACKING"}, rows));
}

template <typename Options>
std::shared_ptr<Options> Keep() {
  return std::make_shared<Options>();
}

void AddCreate(CLI::App& app, Session& session) {
  CLI::App* create = app.get_subcommand("create");
  struct Options {
    std::string name;
    SpecFlags spec;
    std::vector<std::string> labels;
    std::string request_id;
    bool dry_run = false;
  };
  const auto options = Keep<Options>();
  CLI::App* machine = create->add_subcommand("machine", "Create and boot a machine");
  machine->add_option("name", options->name, "Its id: a-z, 0-9 and '-'")->required();
  options->spec.AddTo(machine);
  machine->add_option("--label", options->labels, "KEY=VALUE, repeatable");
  machine->add_option("--request-id", options->request_id, "A retry with the same id returns the first answer");
  machine->add_flag("--dry-run", options->dry_run, "Only check; create nothing");
  machine->callback([options, &session] {
    v1::CreateMachineRequest request;
    request.set_machine_id(options->name);
    *request.mutable_spec() = options->spec.Spec();
    for (const std::string& label : options->labels) {
      const std::pair<std::string, std::string> parts = absl::StrSplit(label, absl::MaxSplits('=', 1));
      (*request.mutable_labels())[parts.first] = parts.second;
    }
    request.set_validate_only(options->dry_run);
    request.set_request_id(options->request_id);
    v1::CreateMachineResponse response;
    session.Call(*session.connection().machines, &v1::MachineService::Stub::CreateMachine, request, &response);
    if (PrintStructured(session.options(), response.machine())) return;
    fmt::print("machine/{} {}\n", LastPart(response.machine().name()), options->dry_run ? "would be created (dry run)" : "created");
  });
}

void AddGet(CLI::App& app, Session& session) {
  CLI::App* get = app.add_subcommand("get", "List machines, processes, presets or frames");
  get->require_subcommand(1);
  struct Options {
    std::string machine;
    std::string pfn = "0";
    int count = 16;
  };
  const auto options = Keep<Options>();
  CLI::App* machines = get->add_subcommand("machines", "Machines of the server")->alias("machine");
  machines->add_option("name", options->machine, "Only this one");
  machines->callback([options, &session] { GetMachines(session, options->machine); });
  get->add_subcommand("presets", "Recorded machines that new ones can be like")->callback([&session] { GetPresets(session); });
  CLI::App* processes = get->add_subcommand("processes", "Processes of a machine")->alias("ps");
  processes->add_option("machine", options->machine, "Machine")->required();
  processes->callback([options, &session] { GetProcesses(session, options->machine); });
  CLI::App* frames = get->add_subcommand("frames", "Page frames of a machine");
  frames->add_option("machine", options->machine, "Machine")->required();
  frames->add_option("pfn", options->pfn, "First frame number")->capture_default_str();
  frames->add_option("--count", options->count, "How many")->check(CLI::Range(1, 4096))->capture_default_str();
  frames->callback([options, &session] {
    const auto pfn = ParseSize(options->pfn);
    if (!pfn) Fail(kExitUsage, "pfn: a number, not " + options->pfn);
    GetFrames(session, options->machine, *pfn, options->count);
  });
}

void AddDescribe(CLI::App& app, Session& session) {
  CLI::App* describe = app.add_subcommand("describe", "Show one thing in detail");
  describe->require_subcommand(1);
  struct Options {
    std::string machine;
    int pid = 0;
    std::string pfn;
    std::string store;
  };
  const auto options = Keep<Options>();
  CLI::App* machine = describe->add_subcommand("machine", "A machine and its zones");
  machine->add_option("name", options->machine, "Machine")->required();
  machine->callback([options, &session] { DescribeMachine(session, options->machine); });
  CLI::App* process = describe->add_subcommand("process", "A process, its mm_struct and its VMAs");
  process->add_option("machine", options->machine, "Machine")->required();
  process->add_option("pid", options->pid, "Process id")->required();
  process->add_option("--store", options->store, "Instead: the tree in which 4.12 (rbtree) or 6.1 (maple) keeps the VMAs")
      ->check(CLI::IsMember({"rbtree", "maple"}));
  process->callback([options, &session] {
    if (!options->store.empty()) return DescribeVmaStore(session, options->machine, options->pid, options->store);
    DescribeProcess(session, options->machine, options->pid);
  });
  CLI::App* frame = describe->add_subcommand("frame", "A page frame: what struct page says of it");
  frame->add_option("machine", options->machine, "Machine")->required();
  frame->add_option("pfn", options->pfn, "Frame number")->required();
  frame->callback([options, &session] {
    const auto pfn = ParseSize(options->pfn);
    if (!pfn) Fail(kExitUsage, "pfn: a number, not " + options->pfn);
    DescribeFrame(session, options->machine, *pfn);
  });
}

void AddDeleteBootCheck(CLI::App& app, Session& session) {
  struct Options {
    std::string name;
    SpecFlags spec;
    bool ignore_not_found = false;
    bool error_unchanged = false;
  };
  const auto options = Keep<Options>();
  CLI::App* remove = app.add_subcommand("delete", "End a machine");
  remove->require_subcommand(1);
  CLI::App* machine = remove->add_subcommand("machine", "End a machine; its state is gone");
  machine->add_option("name", options->name, "Machine")->required();
  machine->add_flag("--ignore-not-found", options->ignore_not_found, "Nothing to delete is no error");
  machine->add_flag("--error-unchanged", options->error_unchanged, "With --ignore-not-found: exit 3 when there was nothing to delete");
  machine->callback([options, &session] {
    v1::DeleteMachineRequest request;
    request.set_name("machines/" + options->name);
    v1::DeleteMachineResponse response;
    Connection& connection = session.connection();
    const grpc::Status status = connection.Call(*connection.machines, &v1::MachineService::Stub::DeleteMachine, request, &response);
    if (options->ignore_not_found && status.error_code() == grpc::StatusCode::NOT_FOUND) {
      fmt::print("machine/{} unchanged (there is none)\n", options->name);
      if (options->error_unchanged) throw CommandFailure{kExitUnchanged};
      return;
    }
    session.Check(status);
    fmt::print("machine/{} deleted\n", options->name);
  });

  CLI::App* boot = app.add_subcommand("boot", "Boot a machine anew");
  boot->require_subcommand(1);
  CLI::App* boot_machine = boot->add_subcommand("machine", "Boot a machine anew: its processes and contents are gone");
  boot_machine->add_option("name", options->name, "Machine")->required();
  options->spec.AddTo(boot_machine);
  boot_machine->callback([options, &session] {
    v1::BootMachineRequest request;
    request.set_name("machines/" + options->name);
    const v1::MachineSpec spec = options->spec.Spec();
    if (spec.ByteSizeLong() > 0) *request.mutable_spec() = spec;
    v1::BootMachineResponse response;
    session.Call(*session.connection().machines, &v1::MachineService::Stub::BootMachine, request, &response);
    if (PrintStructured(session.options(), response.machine())) return;
    fmt::print("machine/{} booted\n", options->name);
  });

  CLI::App* check = app.add_subcommand("check", "Prove a machine's accounting; exit 1 when an invariant is broken");
  check->require_subcommand(1);
  CLI::App* check_machine = check->add_subcommand("machine", "Every frame in one state, sums equal counters");
  check_machine->add_option("name", options->name, "Machine")->required();
  check_machine->callback([options, &session] {
    v1::CheckMachineRequest request;
    request.set_name("machines/" + options->name);
    v1::CheckMachineResponse response;
    session.Call(*session.connection().machines, &v1::MachineService::Stub::CheckMachine, request, &response);
    if (!PrintStructured(session.options(), response)) {
      for (const std::string& violation : response.violations()) fmt::print("{}\n", violation);
      fmt::print("machine/{} {} (state hash {:016x})\n", options->name, response.violations().empty() ? "consistent" : "BROKEN",
                 response.state_hash());
    }
    if (!response.violations().empty()) throw CommandFailure{kExitCheckFailed};
  });
}

}  // namespace

void AddMachineCommands(CLI::App& app, Session& session) {
  CLI::App* create = app.add_subcommand("create", "Create a machine, a process or a file");
  create->require_subcommand(1);
  AddCreate(app, session);
  AddGet(app, session);
  AddDescribe(app, session);
  AddDeleteBootCheck(app, session);
}

}  // namespace mmlab
