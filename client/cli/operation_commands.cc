#include <fmt/core.h>
#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli/commands.h"
#include "client/cli/contract_comments.h"
#include "client/cli/exit_code.h"
#include "client/cli/operation_flags.h"
#include "client/cli/output.h"
#include "client/elf.h"

namespace mmlab {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

// An operation as a command where the contract's name or fields are not what a person would type.
struct Verb {
  std::string name;                          // As typed.
  const FieldDescriptor* operation;          // Member of v1::Operation.
  std::map<std::string, std::string> fixed;  // Fields that the name already says.
  std::string help;
};

v1::Outcome RunOperation(Session& session, const std::string& machine, const v1::Operation& operation) {
  v1::ExecuteBatchRequest batch;
  batch.set_machine("machines/" + machine);
  *batch.add_operations() = operation;
  v1::ExecuteBatchResponse response;
  session.Call(*session.connection().operations, &v1::OperationService::Stub::ExecuteBatch, batch, &response);
  if (response.outcomes_size() != 1) Fail(kExitStatusBase + static_cast<int>(grpc::INTERNAL), "the server answered without an outcome");
  return response.outcomes(0);
}

void PrintOutcome(Session& session, const std::string& verb, const v1::Outcome& outcome) {
  if (!PrintStructured(session.options(), outcome)) fmt::print("{}", OutcomeText(verb, outcome));
}

void SetExplain(google::protobuf::Message* request) {
  request->GetReflection()->SetBool(request, request->GetDescriptor()->FindFieldByName("explain"), true);
}

void AddVerb(CLI::App* parent, Session& session, const Verb& verb) {
  CLI::App* command = parent->add_subcommand(verb.name, verb.help);
  const auto flags = std::make_shared<OperationFlags>(verb.operation->message_type());
  flags->AddTo(command, verb.fixed);
  command->callback([flags, verb, &session] {
    v1::Operation operation;
    google::protobuf::Message* request = operation.GetReflection()->MutableMessage(&operation, verb.operation);
    flags->Fill(request);
    if (session.options().explain) SetExplain(request);
    PrintOutcome(session, verb.operation->name(), RunOperation(session, flags->machine(), operation));
  });
}

v1::Layout LayoutOf(Session& session, const std::string& machine) {
  v1::GetMachineRequest request;
  request.set_name("machines/" + machine);
  v1::GetMachineResponse response;
  session.Call(*session.connection().machines, &v1::MachineService::Stub::GetMachine, request, &response);
  return response.machine().spec().layout();
}

void MakeProgramFile(Session& session, const std::string& machine, const std::string& path, uint64_t size, const std::string& content) {
  constexpr int kEexist = 17;
  v1::Operation operation;
  v1::CreateFileRequest& create = *operation.mutable_create_file();
  create.set_path(path);
  create.set_file_system(v1::FILE_SYSTEM_EXT4);
  create.set_size_bytes(size);
  create.set_content(content);
  create.set_resident(true);
  const v1::Outcome outcome = RunOperation(session, machine, operation);
  if (outcome.error_number() != 0 && outcome.error_number() != kEexist) {
    Fail(kExitCheckFailed, absl::StrCat("the machine did not take the program file: ", outcome.error_name()));
  }
}

void AddExec(CLI::App* parent, Session& session) {
  struct Options {
    std::string machine;
    int pid = 0;
    std::string file;
    std::string interpreter;
    bool use_default = false;
    std::vector<std::string> arguments;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* exec = parent->add_subcommand("exec", "Replace a process's image, from an ELF file of this host or a built-in one");
  exec->add_option("machine", options->machine, "Machine")->required();
  exec->add_option("pid", options->pid, "Acting process")->required();
  exec->add_option("file", options->file, "ELF executable of this host; its headers and first MiB go to the machine");
  exec->add_option("--interpreter", options->interpreter,
                   "File of this host to take for the program's interpreter (PT_INTERP); without it, the file of that name is taken");
  exec->add_flag("--default", options->use_default, "The built-in program: one page each of text, constants, data, and four of bss");
  exec->add_option("--arg", options->arguments, "Argument, repeatable");
  exec->callback([options, &session] {
    if (options->file.empty() != options->use_default) Fail(kExitUsage, "exec: give either an ELF file or --default");
    v1::Operation operation;
    v1::ExecRequest& request = *operation.mutable_exec();
    request.set_pid(options->pid);
    if (options->use_default) {
      *request.mutable_image() = DefaultImage(LayoutOf(session, options->machine));
      MakeProgramFile(session, options->machine, request.image().path(), 3 * 4096, "");
    } else {
      absl::StatusOr<ElfFile> elf = ReadElf(options->file, LayoutOf(session, options->machine));
      if (!elf.ok()) Fail(kExitLocalFile, std::string(elf.status().message()));
      *request.mutable_image() = elf->image;
      MakeProgramFile(session, options->machine, elf->image.path(), elf->size_bytes, elf->first_bytes);
      if (!elf->interpreter.empty()) {
        const std::string& from = options->interpreter.empty() ? elf->interpreter : options->interpreter;
        absl::StatusOr<ElfFile> interpreter = ReadElf(from, LayoutOf(session, options->machine));
        if (!interpreter.ok()) Fail(kExitLocalFile, absl::StrCat("its interpreter: ", interpreter.status().message()));
        *request.mutable_interpreter() = interpreter->image;
        request.mutable_interpreter()->set_path(elf->interpreter);
        MakeProgramFile(session, options->machine, elf->interpreter, interpreter->size_bytes, interpreter->first_bytes);
      }
    }
    request.add_arguments(request.image().path());
    for (const std::string& argument : options->arguments) request.add_arguments(argument);
    request.set_explain(session.options().explain);
    PrintOutcome(session, "exec", RunOperation(session, options->machine, operation));
  });
}

void AddSysctl(CLI::App* parent, Session& session) {
  struct Options {
    std::string machine;
    std::string name;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* sysctl = parent->add_subcommand("sysctl", "Read a sysctl, or write it: NAME=VALUE");
  sysctl->add_option("machine", options->machine, "Machine")->required();
  sysctl->add_option("name", options->name, "vm.overcommit_memory, or vm.overcommit_memory=2")->required();
  sysctl->callback([options, &session] {
    const size_t equals = options->name.find('=');
    const std::string name = options->name.substr(0, equals);
    if (equals != std::string::npos) {
      const std::string value = options->name.substr(equals + 1);
      v1::Operation operation;
      operation.mutable_write_sysctl()->set_sysctl(name);
      operation.mutable_write_sysctl()->set_value(value);
      operation.mutable_write_sysctl()->set_explain(session.options().explain);
      const v1::Outcome outcome = RunOperation(session, options->machine, operation);
      if (outcome.error_number() != 0) return PrintOutcome(session, "write_sysctl", outcome);
      if (PrintStructured(session.options(), outcome)) return;
      fmt::print("{} = {}\n", name, value);  // As sysctl(8) does: some can't be read.
      fmt::print("{}", outcome.explanation().text());
      return;
    }
    v1::ReadProcFileRequest request;
    request.set_machine("machines/" + options->machine);
    request.set_path("sys/" + absl::StrReplaceAll(name, {{".", "/"}}));
    v1::ReadProcFileResponse response;
    session.Call(*session.connection().proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
    fmt::print("{} = {}", name, response.content());
  });
}

void AddJsonOperation(CLI::App* parent, Session& session) {
  struct Options {
    std::string machine;
    std::string json;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* op = parent->add_subcommand("op", "Apply one operation given as JSON of mmlab.v1.Operation");
  op->add_option("machine", options->machine, "Machine")->required();
  op->add_option("operation", options->json, R"({"mmap": {"pid": 2, "length_bytes": 4096, "prot": 3, "flags": 34}})")->required();
  op->callback([options, &session] {
    v1::Operation operation;
    const auto status = google::protobuf::util::JsonStringToMessage(options->json, &operation);
    if (!status.ok()) Fail(kExitUsage, "operation: " + std::string(status.message()));
    const FieldDescriptor* set = operation.GetReflection()->GetOneofFieldDescriptor(operation, v1::Operation::descriptor()->oneof_decl(0));
    PrintOutcome(session, set == nullptr ? "" : set->name(), RunOperation(session, options->machine, operation));
  });
}

const FieldDescriptor* Member(const std::string& name) { return v1::Operation::descriptor()->FindFieldByName(name); }

// "Maps memory into a process, like mmap(2)": a comment up to its first full stop or errno.
std::string FirstSentence(absl::string_view comment) {
  size_t end = comment.find(". ");
  if (end == absl::string_view::npos) end = comment.size() - (absl::EndsWith(comment, ".") ? 1 : 0);
  return std::string(comment.substr(0, end));
}

std::vector<Verb> Verbs() {
  std::vector<Verb> verbs;
  // Those with a command of their own, or whose kind is the command.
  static const auto* const kSpecial = new std::vector<std::string>{"create_process", "create_file",   "exec",          "access_memory",
                                                                   "write_sysctl",   "create_cgroup", "remove_cgroup", "write_cgroup_file"};
  const Descriptor* operation = v1::Operation::descriptor();
  for (int i = 0; i < operation->field_count(); ++i) {
    const FieldDescriptor* member = operation->field(i);
    if (std::find(kSpecial->begin(), kSpecial->end(), member->name()) != kSpecial->end()) continue;
    const std::string verb = member->name() == "compact_memory" ? "compact" : absl::StrReplaceAll(member->name(), {{"_", "-"}});
    verbs.push_back({verb, member, {}, FirstSentence(CommentOn(member->message_type()->full_name()))});
  }
  const google::protobuf::EnumDescriptor* kinds = v1::AccessKind_descriptor();
  for (int i = 1; i < kinds->value_count(); ++i) {
    const std::string kind = kinds->value(i)->name().substr(sizeof("ACCESS_KIND_") - 1);
    std::string name = absl::StrReplaceAll(kind, {{"_", "-"}});
    for (char& c : name) c = static_cast<char>(tolower(c));
    verbs.push_back({name, Member("access_memory"), {{"kind", kind}}, "Memory access of a process: " + name});
  }
  return verbs;
}

}  // namespace

v1::ElfImage DefaultImage(v1::Layout layout) {
  const uint64_t base = layout == v1::LAYOUT_ARM64 ? 0x400000 : 0x8048000;
  v1::ElfImage image;
  image.set_path("/bin/program");
  image.set_entry_address(base + 0xc0);
  const auto add = [&](uint64_t page, uint64_t memory_pages, uint32_t flags) {
    v1::ProgramHeader& header = *image.add_program_headers();
    header.set_type(v1::ProgramHeader::TYPE_LOAD);
    header.set_offset_bytes(page * 4096);
    header.set_virtual_address(base + page * 4096);
    header.set_file_size_bytes(4096);
    header.set_memory_size_bytes(memory_pages * 4096);
    header.set_flags(flags);
    header.set_align_bytes(4096);
  };
  add(0, 1, 5);
  add(1, 1, 4);
  add(2, 5, 6);
  // Without it the kernel would take the program for one of old, whose every readable page can be executed.
  v1::ProgramHeader& stack = *image.add_program_headers();
  stack.set_type(v1::ProgramHeader::TYPE_GNU_STACK);
  stack.set_flags(6);
  return image;
}

void AddOperationCommands(CLI::App& app, Session& session) {
  CLI::App* create = app.get_subcommand("create");
  AddVerb(create, session, {"process", Member("create_process"), {}, "Make a process without an image"});
  AddVerb(create, session, {"file", Member("create_file"), {}, "Make a file of the machine"});
  AddExec(&app, session);
  AddSysctl(&app, session);
  AddJsonOperation(&app, session);
  for (const Verb& verb : Verbs()) AddVerb(&app, session, verb);
}

void AddExplainCommand(CLI::App& app, Session& session, GlobalOptions& options) {
  CLI::App* explain = app.add_subcommand("explain", "Run an operation and show the decisions behind its outcome");
  explain->require_subcommand(1);
  explain->parse_complete_callback([&options] { options.explain = true; });
  explain->preparse_callback([&options](size_t) { options.explain = true; });
  AddExec(explain, session);
  AddSysctl(explain, session);
  for (const Verb& verb : Verbs()) AddVerb(explain, session, verb);
  explain->footer(
      "Of a long operation the first 1000 steps are shown, and behind them 50 of each kind. What runs in the background is explained by\n"
      "explain advance-time; other commands (cgroup set, op) by --explain in front. Which steps tell\n"
      "  why a page stayed or went            page_kept, page_evicted, page_sorted, refault, scan_balance\n"
      "  why kswapd woke, and what it did     kswapd_wake, kswapd_sleep\n"
      "  why an allocation stalled or failed  zone_check, direct_reclaim, compaction_finished, allocation_retry\n"
      "  why a process was killed             oom_score: the table, with the arithmetic of each\n"
      "  why a cgroup was throttled           cgroup_throttle, cgroup_reclaim, cgroup_protected\n"
      "  why pages merged, or did not         ksm_merge, ksm_scan, ksm_break\n"
      "  why memory did not become huge       huge_fault, huge_split, huge_collapse\n"
      "  why pages were written or read       writeback, readahead, swap_slot, swap_in\n"
      "Examples:\n"
      "  mmlab explain touch-write lab1 1 --address 0xfffff7fed000 --length 64M | grep -e kswapd -e oom_score\n"
      "  mmlab explain advance-time lab1 --nanoseconds 30000000000\n"
      "  mmlab --explain cgroup set lab1 small memory.reclaim 1M");
}

}  // namespace mmlab
