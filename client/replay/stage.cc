#include "client/replay/stage.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/replay/observation.h"
#include "client/replay/recording.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kOpenModes[] = {0, 1, 2};  // ro, wo, rw

uint64_t Word(const Json& value) {
  uint64_t word = 0;
  ParseWord(value, &word);
  return word;
}

// The cores of ARMv8.0: they leave the access flag of page-table entries to the kernel (FEAT_HAFDBS came with ARMv8.1).
bool LacksHardwareAccessFlag(const std::string& cpu) {
  constexpr absl::string_view kCores[] = {"cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"};
  return std::find(std::begin(kCores), std::end(kCores), cpu) != std::end(kCores);
}

// The flavour names the kernel alone; the CPU and the huge pages are told beside it.
v1::MachineSpec SpecOfFlavour(const Json& header) {
  const std::string flavour = header.value("flavour", "");
  const std::string thp = header.value("thp", "never");
  v1::MachineSpec spec;
  spec.set_layout(absl::StartsWith(flavour, "arm64")     ? v1::LAYOUT_ARM64
                  : absl::StartsWith(flavour, "686-pae") ? v1::LAYOUT_X86_32_PAE
                                                         : v1::LAYOUT_X86_32);
  spec.set_no_hardware_access_flag(LacksHardwareAccessFlag(header.value("cpu", "")));
  spec.set_transparent_hugepage(thp == "always"    ? v1::TRANSPARENT_HUGEPAGE_ALWAYS
                                : thp == "madvise" ? v1::TRANSPARENT_HUGEPAGE_MADVISE
                                                   : v1::TRANSPARENT_HUGEPAGE_NEVER);
  return spec;
}

// What a recording may ask for; far above what any has.
constexpr uint64_t kMostFileBytes = uint64_t{1} << 20;
constexpr uint64_t kMostControlPages = 256;

absl::Status CheckSizes(const Json& header) {
  if (Word(header.at("page_size")) != 4096) return absl::UnimplementedError("recordings of pages other than 4 KiB are not performed");
  if (Word(header.at("regions").at("control_pages_len")) > kMostControlPages * 4096) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", kMostControlPages, " control pages"));
  }
  uint64_t largest = Word(header.at("elf").at("file_size"));
  for (const Json& file : header.at("files")) largest = std::max(largest, Word(file.at("size")));
  if (largest > kMostFileBytes) return absl::InvalidArgumentError("a file of more than 1 MiB");
  return absl::OkStatus();
}

int64_t ManagedPages(const v1::MachineSpec& spec) {
  int64_t pages = 0;
  for (const auto& [zone, managed] : spec.recorded().managed_pages()) pages += managed;
  return pages;
}

// The preset of this layout whose MemTotal is nearest to the recording's.
absl::StatusOr<std::string> PresetFor(Connection& connection, v1::Layout layout, int64_t mem_total) {
  v1::ListPresetsRequest request;
  v1::ListPresetsResponse response;
  MMLAB_RETURN_IF_ERROR(ToAbsl(connection.Call(*connection.machines, &v1::MachineService::Stub::ListPresets, request, &response)));
  std::string best;
  int64_t best_distance = INT64_MAX;
  for (const v1::Preset& preset : response.presets()) {
    if (preset.spec().layout() != layout || preset.spec().cpus() > 1) continue;
    const int64_t distance = std::abs(ManagedPages(preset.spec()) * 4096 - mem_total);
    if (distance < best_distance) {
      best = preset.name();
      best_distance = distance;
    }
  }
  if (best.empty()) return absl::NotFoundError("the server has no preset of the recording's flavour");
  return best;
}

std::string FileContent(int index, uint64_t size) {
  std::string content(size, '\0');
  for (uint64_t o = 0; o < size; ++o)
    content[o] = static_cast<char>(uint64_t{37} * static_cast<uint64_t>(index) + 11 * (o / 4096) + 3 * (o % 256) + 1);
  return content;
}

// The bytes of the program file at the pages that the recording's README gives contents for; zeros elsewhere.
std::string SubjectContent(const Json& header) {
  const Json& elf = header.at("elf");
  std::string content(Word(elf.at("file_size")), '\0');
  for (const auto& [region, byte] : {std::pair("test_rodata", '\x4f'), std::pair("test_data", '\xd7')}) {
    const uint64_t start = Word(header.at("regions").at(region));
    for (const Json& segment : elf.at("program_headers")) {
      const uint64_t vaddr = Word(segment.at("vaddr"));
      const uint64_t filesz = Word(segment.at("filesz"));
      if (segment.at("type") != "PT_LOAD" || start < vaddr || start >= vaddr + filesz) continue;
      const uint64_t offset = Word(segment.at("offset"));
      for (uint64_t at = start - vaddr; at < filesz && offset + at < content.size(); ++at) content[offset + at] = byte;
    }
  }
  return content;
}

v1::Operation Touch(int32_t pid, v1::AccessKind kind, uint64_t address, uint64_t value) {
  v1::Operation operation;
  v1::AccessMemoryRequest& access = *operation.mutable_access_memory();
  access.set_pid(pid);
  access.set_kind(kind);
  access.set_address(address);
  access.set_length_bytes(1);
  access.set_value(value);
  return operation;
}

v1::Operation SetLimit(int32_t pid, uint32_t resource, uint64_t current, uint64_t maximum) {
  v1::Operation operation;
  operation.mutable_setrlimit()->set_pid(pid);
  operation.mutable_setrlimit()->set_resource(resource);
  operation.mutable_setrlimit()->set_current_bytes(current);
  operation.mutable_setrlimit()->set_maximum_bytes(maximum);
  return operation;
}

}  // namespace

absl::Status ToAbsl(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::StatusOr<Stage> Stage::SetUp(Connection& connection, const Json& header, const std::string& id) {
  MMLAB_RETURN_IF_ERROR(CheckSizes(header));
  v1::CreateMachineRequest request;
  request.set_machine_id(id);
  v1::MachineSpec& spec = *request.mutable_spec();
  spec = SpecOfFlavour(header);
  MMLAB_ASSIGN_OR_RETURN(const std::string preset,
                         PresetFor(connection, spec.layout(), static_cast<int64_t>(Word(header.at("meminfo").at("mem_total")))));
  spec.set_preset(preset);
  v1::CreateMachineResponse response;
  MMLAB_RETURN_IF_ERROR(ToAbsl(connection.Call(*connection.machines, &v1::MachineService::Stub::CreateMachine, request, &response)));

  Stage stage(connection, response.machine().name());
  if (absl::Status status = ReadingRecording([&] { return stage.Furnish(header); }); !status.ok()) {
    stage.Delete().IgnoreError();
    return status;
  }
  return stage;
}

absl::Status Stage::Furnish(const Json& header) {
  for (const auto& [name, value] : header.at("sysctl").items()) {
    // Of the two ways to say the limit, writing one switches the other off (overcommit_kbytes_handler).
    if (name == "overcommit_kbytes" && Word(value) == 0) continue;
    const bool kernel = name == "randomize_va_space" || absl::StartsWith(name, "shm");
    MMLAB_RETURN_IF_ERROR(WriteSysctl(absl::StrCat(kernel ? "kernel." : "vm.", name), value.dump()));
  }
  MMLAB_RETURN_IF_ERROR(MakeFiles(header));
  return CommitInBackground(static_cast<int64_t>(Word(header.at("committed_before_kb"))) * 1024, header);
}

absl::StatusOr<int32_t> Stage::StartProgram(const Json& header, const Json& initial) {
  v1::Operation create;
  create.mutable_create_process()->set_comm("subject");
  create.mutable_create_process()->set_uid(static_cast<uint32_t>(Word(header.at("uid"))));
  MMLAB_ASSIGN_OR_RETURN(const v1::Outcome created, MustApply(create));
  const auto pid = static_cast<int32_t>(created.value());
  for (const auto& [name, resource] : {std::pair("data", 2), std::pair("stack", 3), std::pair("memlock", 8), std::pair("as", 9)}) {
    const Json& limit = header.at("rlimits").at(name);
    MMLAB_RETURN_IF_ERROR(MustApply(SetLimit(pid, static_cast<uint32_t>(resource), Word(limit.at(0)), Word(limit.at(1)))).status());
  }
  MMLAB_RETURN_IF_ERROR(Exec(header, pid));
  MMLAB_RETURN_IF_ERROR(OpenFiles(header, pid));
  MMLAB_RETURN_IF_ERROR(TouchStartPages(header, initial, pid));
  MMLAB_RETURN_IF_ERROR(FollowDirectives(header, pid));
  return pid;
}

absl::StatusOr<v1::ExecuteBatchResponse> Stage::ApplyBatch(const v1::ExecuteBatchRequest& batch) {
  v1::ExecuteBatchResponse response;
  MMLAB_RETURN_IF_ERROR(ToAbsl(connection_->Call(*connection_->operations, &v1::OperationService::Stub::ExecuteBatch, batch, &response)));
  return response;
}

absl::StatusOr<v1::Outcome> Stage::Apply(const v1::Operation& operation) {
  v1::ExecuteBatchRequest batch;
  batch.set_machine(machine_);
  *batch.add_operations() = operation;
  MMLAB_ASSIGN_OR_RETURN(v1::ExecuteBatchResponse response, ApplyBatch(batch));
  if (response.outcomes_size() != 1) return absl::InternalError("a batch of one operation had no outcome");
  return std::move(*response.mutable_outcomes(0));
}

absl::StatusOr<v1::Outcome> Stage::MustApply(const v1::Operation& operation) {
  MMLAB_ASSIGN_OR_RETURN(v1::Outcome outcome, Apply(operation));
  if (outcome.error_number() != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("setting the machine up failed with ", outcome.error_name(), ": ", operation.ShortDebugString()));
  }
  if (outcome.has_signal()) {
    return absl::FailedPreconditionError(
        absl::StrCat("setting the machine up ended in ", outcome.signal().name(), ": ", operation.ShortDebugString()));
  }
  return outcome;
}

absl::Status Stage::WriteSysctl(const std::string& name, const std::string& value) {
  v1::Operation operation;
  operation.mutable_write_sysctl()->set_sysctl(name);
  operation.mutable_write_sysctl()->set_value(value);
  return MustApply(operation).status();
}

absl::Status Stage::MakeFiles(const Json& header) {
  v1::Operation subject;
  subject.mutable_create_file()->set_path(kSubjectPath);
  subject.mutable_create_file()->set_file_system(v1::FILE_SYSTEM_EXT4);
  subject.mutable_create_file()->set_content(SubjectContent(header));
  subject.mutable_create_file()->set_size_bytes(subject.create_file().content().size());
  subject.mutable_create_file()->set_resident(true);
  MMLAB_RETURN_IF_ERROR(MustApply(subject).status());
  for (const Json& file : header.at("files")) {
    const std::string kind = file.at("kind");
    if (kind != "tmpfs" && kind != "ext4") continue;
    v1::Operation operation;
    v1::CreateFileRequest& create = *operation.mutable_create_file();
    create.set_path(RecordedFilePath(file.at("index")));
    create.set_file_system(kind == "ext4" ? v1::FILE_SYSTEM_EXT4 : v1::FILE_SYSTEM_TMPFS);
    create.set_content(FileContent(file.at("index"), file.at("size")));
    create.set_size_bytes(create.content().size());
    create.set_resident(true);
    MMLAB_RETURN_IF_ERROR(MustApply(operation).status());
  }
  return absl::OkStatus();
}

absl::Status Stage::OpenFiles(const Json& header, int32_t pid) {
  for (const Json& file : header.at("files")) {
    v1::Operation operation;
    if (file.at("kind") == "pipe") {
      operation.mutable_pipe()->set_pid(pid);
      operation.mutable_pipe()->set_wished_fd(file.at("fd"));
    } else {
      const std::string mode = file.at("open_mode");
      operation.mutable_open()->set_pid(pid);
      operation.mutable_open()->set_path(RecordedFilePath(file.at("index")));
      operation.mutable_open()->set_flags(kOpenModes[mode == "rw" ? 2 : mode == "wo" ? 1 : 0]);
      operation.mutable_open()->set_wished_fd(file.at("fd"));
    }
    MMLAB_RETURN_IF_ERROR(MustApply(operation).status());
  }
  return absl::OkStatus();
}

// The rest of the system: one process that has committed so much that the machine's sum is what it was before the program started.
absl::Status Stage::CommitInBackground(int64_t bytes, const Json& header) {
  v1::Operation create;
  create.mutable_create_process()->set_comm("system");
  MMLAB_ASSIGN_OR_RETURN(const v1::Outcome created, MustApply(create));
  const auto pid = static_cast<int32_t>(created.value());
  MMLAB_RETURN_IF_ERROR(Exec(header, pid));
  MMLAB_ASSIGN_OR_RETURN(const int64_t committed, CommittedBytes());
  if (bytes <= committed) return absl::OkStatus();
  v1::Operation map;
  map.mutable_mmap()->set_pid(pid);
  map.mutable_mmap()->set_length_bytes(static_cast<uint64_t>(bytes - committed));
  map.mutable_mmap()->set_prot(3);      // PROT_READ | PROT_WRITE
  map.mutable_mmap()->set_flags(0x22);  // MAP_PRIVATE | MAP_ANONYMOUS
  map.mutable_mmap()->set_fd(-1);
  return MustApply(map).status();
}

absl::Status Stage::Exec(const Json& header, int32_t pid) {
  v1::Operation operation;
  v1::ExecRequest& exec = *operation.mutable_exec();
  exec.set_pid(pid);
  exec.mutable_image()->set_path(kSubjectPath);
  exec.mutable_image()->set_entry_address(Word(header.at("elf").at("entry")));
  for (const Json& segment : header.at("elf").at("program_headers")) {
    v1::ProgramHeader& program_header = *exec.mutable_image()->add_program_headers();
    const std::string type = segment.at("type");
    program_header.set_type(type == "PT_LOAD"        ? v1::ProgramHeader::TYPE_LOAD
                            : type == "PT_GNU_STACK" ? v1::ProgramHeader::TYPE_GNU_STACK
                                                     : v1::ProgramHeader::TYPE_UNSPECIFIED);
    program_header.set_offset_bytes(Word(segment.at("offset")));
    program_header.set_virtual_address(Word(segment.at("vaddr")));
    program_header.set_file_size_bytes(Word(segment.at("filesz")));
    program_header.set_memory_size_bytes(Word(segment.at("memsz")));
    program_header.set_align_bytes(Word(segment.at("align")));
    uint32_t flags = 0;
    for (const char letter : segment.at("flags").get<std::string>()) flags |= letter == 'r' ? 4u : letter == 'w' ? 2u : 1u;
    program_header.set_flags(flags);
  }
  exec.add_arguments("subject");
  return MustApply(operation).status();
}

// The program's start-up runs from its text page and reads, then writes the control pages. Exec itself wrote the stack's page and cleared
// the end of the data segment's last page. Read faults come first on all control pages but one: that makes the 17 faults which the recorded
// process had counted since its address space was new.
absl::Status Stage::TouchStartPages(const Json& header, const Json& initial, int32_t pid) {
  const uint64_t page = Word(header.at("page_size"));
  const uint64_t control = Word(header.at("regions").at("control_pages"));
  const uint64_t control_length = Word(header.at("regions").at("control_pages_len"));
  MMLAB_RETURN_IF_ERROR(MustApply(Touch(pid, v1::ACCESS_KIND_EXECUTE, Word(header.at("elf").at("entry")), 0)).status());
  for (uint64_t at = page; at < control_length; at += page) {
    MMLAB_RETURN_IF_ERROR(MustApply(Touch(pid, v1::ACCESS_KIND_LOAD, control + at, 0)).status());
  }
  for (uint64_t at = 0; at < control_length; at += page) {
    MMLAB_RETURN_IF_ERROR(MustApply(Touch(pid, v1::ACCESS_KIND_STORE, control + at, 1)).status());
  }
  // Pages that this recording's start-up had touched beyond those.
  MMLAB_ASSIGN_OR_RETURN(const v1::Process now, Look(pid));
  for (const v1::VmArea& area : now.vm_areas()) {
    const Json& smaps = initial.at("procs").at("0").at("smaps");
    const auto recorded = smaps.find(Hex(area.start_address()));
    if (recorded == smaps.end() || area.smaps().rss_bytes() > 0 || !recorded->contains("rss")) continue;
    const uint64_t end = area.start_address() + Word(recorded->at("rss"));
    const bool written = recorded->contains("private_dirty");
    for (uint64_t at = area.start_address(); at < end; at += page) {
      MMLAB_RETURN_IF_ERROR(MustApply(Touch(pid, written ? v1::ACCESS_KIND_STORE : v1::ACCESS_KIND_LOAD, at, 0)).status());
    }
  }
  return absl::OkStatus();
}

// "sysctl vm/overcommit_memory 2", "rlimit 2 0x200000 -1".
absl::Status Stage::FollowDirectives(const Json& header, int32_t pid) {
  for (const Json& directive : header.at("directives")) {
    const std::string text = directive;
    const std::vector<std::string> words = absl::StrSplit(text, ' ');
    if (words.size() == 3 && words[0] == "sysctl") {
      MMLAB_RETURN_IF_ERROR(WriteSysctl(absl::StrReplaceAll(words[1], {{"/", "."}}), words[2]));
    } else if (words.size() == 4 && words[0] == "rlimit") {
      uint64_t limits[3] = {0, 0, 0};
      for (int i = 0; i < 3; ++i) {
        if (words[i + 1] == "-1") {
          limits[i] = ~uint64_t{0};
        } else if (!ParseWord(Json(words[i + 1]), &limits[i])) {
          return absl::InvalidArgumentError(absl::StrCat("directive with a bad number: ", text));
        }
      }
      MMLAB_RETURN_IF_ERROR(MustApply(SetLimit(pid, static_cast<uint32_t>(limits[0]), limits[1], limits[2])).status());
    } else {
      return absl::InvalidArgumentError(absl::StrCat("unknown directive: ", text));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Process> Stage::Look(int32_t pid) {
  v1::GetProcessRequest request;
  request.set_name(absl::StrCat(machine_, "/processes/", pid));
  request.set_view(v1::PROCESS_VIEW_FULL);
  v1::GetProcessResponse response;
  MMLAB_RETURN_IF_ERROR(ToAbsl(connection_->Call(*connection_->processes, &v1::ProcessService::Stub::GetProcess, request, &response)));
  return std::move(*response.mutable_process());
}

absl::StatusOr<int64_t> Stage::CommittedBytes() {
  v1::GetMeminfoRequest request;
  request.set_machine(machine_);
  v1::GetMeminfoResponse response;
  MMLAB_RETURN_IF_ERROR(ToAbsl(connection_->Call(*connection_->proc, &v1::ProcService::Stub::GetMeminfo, request, &response)));
  for (const v1::MeminfoField& field : response.fields()) {
    if (field.name() == "Committed_AS") return field.bytes();
  }
  return absl::NotFoundError("the machine's meminfo has no Committed_AS");
}

absl::Status Stage::Delete() {
  v1::DeleteMachineRequest request;
  request.set_name(machine_);
  v1::DeleteMachineResponse response;
  return ToAbsl(connection_->Call(*connection_->machines, &v1::MachineService::Stub::DeleteMachine, request, &response));
}

}  // namespace mmlab
