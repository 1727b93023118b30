// `mmlab lesson page-replacement`: a textbook's reference string on a machine, with the textbook's policies and with Linux's own.

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "nlohmann/json.hpp"

namespace mmlab {
namespace {

constexpr uint64_t kPageBytes = 4096;  // Of every layout.
constexpr uint32_t kMostPage = 1023;
constexpr size_t kMostReferences = 10000;
constexpr char kSwapDevice[] = "/dev/sdb";
constexpr char kCgroup[] = "lesson";

struct Policy {
  const char* name;
  v1::ReplacementPolicy value;
};
constexpr Policy kPolicies[] = {{"fifo", v1::REPLACEMENT_POLICY_FIFO},
                                {"lru", v1::REPLACEMENT_POLICY_LRU},
                                {"clock", v1::REPLACEMENT_POLICY_CLOCK},
                                {"optimal", v1::REPLACEMENT_POLICY_OPTIMAL},
                                {"linux", v1::REPLACEMENT_POLICY_LINUX}};

struct LessonOptions {
  std::vector<std::string> policies;
  std::vector<uint32_t> frames = {3};
  std::string text = "7 0 1 2 0 3 0 4 2 3 0 3 2 1 2 0 1 7 0 1";
  std::string preset = "686-64M";
  std::string machine = "lesson";
  bool keep = false;
};

// What one access did.
struct Access {
  int64_t minor_faults = 0;
  int64_t major_faults = 0;
  std::vector<std::optional<uint32_t>> frames;  // The page in each frame.
  std::vector<std::string> why;                 // Lines, where they were asked for.

  bool faulted() const { return minor_faults + major_faults > 0; }
};

struct Run {
  Policy policy;
  uint32_t frames = 0;
  std::vector<Access> accesses;

  int64_t faults() const {
    return std::count_if(accesses.begin(), accesses.end(), [](const Access& a) { return a.faulted(); });
  }
};

// A process with as many pages as the string names, on a machine of its own that goes when this does.
class Stage {
 public:
  Stage(Session& session, const LessonOptions& options, const std::string& machine, std::vector<uint32_t> references)
      : session_(session), keep_(options.keep), references_(std::move(references)) {
    v1::CreateMachineRequest request;
    request.set_machine_id(machine);
    request.mutable_spec()->set_preset(options.preset);
    v1::CreateMachineResponse response;
    session.Call(*session.connection().machines, &v1::MachineService::Stub::CreateMachine, request, &response);
    name_ = response.machine().name();
    MakeProcess(response.machine().spec().layout());
  }
  ~Stage() {
    if (keep_) return;
    v1::DeleteMachineRequest request;
    request.set_name(name_);
    v1::DeleteMachineResponse response;
    session_.connection().Call(*session_.connection().machines, &v1::MachineService::Stub::DeleteMachine, request, &response);
  }
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  Run Perform(const Policy& policy, uint32_t frames) {
    policy_ = policy.value;
    // Page tables are there now, and no page: nothing but pages counts.
    for (const uint32_t page : references_) Store(page);
    DropAll();
    policy_ == v1::REPLACEMENT_POLICY_LINUX ? BoundByCgroup(frames) : Bound(frames);
    frames_.assign(frames, std::nullopt);
    Run run{policy, frames, {}};
    for (const uint32_t page : references_) run.accesses.push_back(Touch(page));
    return run;
  }

 private:
  v1::Outcome Do(const v1::Operation& operation, const char* what) {
    v1::ExecuteBatchRequest batch;
    batch.set_machine(name_);
    *batch.add_operations() = operation;
    v1::ExecuteBatchResponse response;
    session_.Call(*session_.connection().operations, &v1::OperationService::Stub::ExecuteBatch, batch, &response);
    const v1::Outcome& outcome = response.outcomes(0);
    if (outcome.error_number() != 0 || outcome.has_signal()) {
      Fail(kExitCheckFailed, fmt::format("lesson: {}: {}{}", what, outcome.error_name(), outcome.signal().name()));
    }
    return outcome;
  }

  void MakeProcess(v1::Layout layout) {
    v1::Operation disk;
    disk.mutable_create_file()->set_path(kSwapDevice);
    disk.mutable_create_file()->set_file_system(v1::FILE_SYSTEM_BLOCK_DEVICE);
    disk.mutable_create_file()->set_size_bytes(16 << 20);
    Do(disk, "the disk to swap to");
    v1::Operation swapon;
    swapon.mutable_swapon()->set_path(kSwapDevice);
    Do(swapon, "swapon");
    v1::Operation create;
    create.mutable_create_process()->set_comm("lesson");
    pid_ = static_cast<int32_t>(Do(create, "the process").value());
    v1::Operation exec;
    exec.mutable_exec()->set_pid(pid_);
    *exec.mutable_exec()->mutable_image() = DefaultImage(layout);
    v1::Operation program;
    program.mutable_create_file()->set_path(exec.exec().image().path());
    program.mutable_create_file()->set_file_system(v1::FILE_SYSTEM_EXT4);
    program.mutable_create_file()->set_size_bytes(3 * kPageBytes);
    Do(program, "the program's file");
    Do(exec, "exec");
    v1::Operation mmap;
    v1::MmapRequest& request = *mmap.mutable_mmap();
    request.set_pid(pid_);
    request.set_length_bytes(Length());
    request.set_prot(3);      // PROT_READ | PROT_WRITE
    request.set_flags(0x22);  // MAP_PRIVATE | MAP_ANONYMOUS
    address_ = Do(mmap, "mmap").value();
  }
  uint64_t Length() const { return (uint64_t{*std::max_element(references_.begin(), references_.end())} + 1) * kPageBytes; }

  void DropAll() {
    v1::Operation operation;
    v1::MadviseRequest& request = *operation.mutable_madvise();
    request.set_pid(pid_);
    request.set_address(address_);
    request.set_length_bytes(Length());
    request.set_advice(4);  // MADV_DONTNEED
    Do(operation, "madvise");
  }

  void Bound(uint32_t frames) {
    v1::Operation operation;
    v1::SetPageReplacementRequest& request = *operation.mutable_set_page_replacement();
    request.set_pid(pid_);
    request.set_policy(policy_);
    request.set_frames(frames);
    request.set_address(address_);
    request.set_length_bytes(Length());
    if (policy_ == v1::REPLACEMENT_POLICY_OPTIMAL) {
      for (const uint32_t page : references_) request.add_references(address_ + page * kPageBytes);
    }
    Do(operation, "the bound");
  }

  // Linux bounds no process, but a memory cgroup, and reclaims what is charged to it.
  void BoundByCgroup(uint32_t frames) {
    WriteCgroup("", "cgroup.subtree_control", "+memory");
    v1::Operation create;
    create.mutable_create_cgroup()->set_cgroup(kCgroup);
    Do(create, "the cgroup");
    WriteCgroup(kCgroup, "cgroup.procs", std::to_string(pid_));
    WriteCgroup(kCgroup, "memory.max", std::to_string(frames * kPageBytes));
  }
  void WriteCgroup(const char* cgroup, const char* file, const std::string& value) {
    v1::Operation operation;
    v1::WriteCgroupFileRequest& request = *operation.mutable_write_cgroup_file();
    request.set_cgroup(cgroup);
    request.set_file(file);
    request.set_value(value);
    Do(operation, file);
  }

  v1::Outcome Store(uint32_t page) {
    v1::Operation operation;
    v1::AccessMemoryRequest& request = *operation.mutable_access_memory();
    request.set_pid(pid_);
    request.set_kind(v1::ACCESS_KIND_STORE);
    request.set_address(address_ + page * kPageBytes);
    request.set_length_bytes(1);
    request.set_value(page);
    request.set_explain(session_.options().explain);
    return Do(operation, "the access");
  }
  Access Touch(uint32_t page) {
    const v1::Outcome outcome = Store(page);
    Access access{outcome.access().minor_faults(), outcome.access().major_faults(), {}, {}};
    for (const v1::ExplanationStep& step : outcome.explanation().steps()) {
      if (step.kind() == v1::STEP_KIND_PAGE_REPLACEMENT) access.why.push_back(StepText(step));
    }
    LookAtFrames();
    access.frames = frames_;
    return access;
  }
  // "FIFO: ... page 7 (loaded 1, used 1)"; addresses as the string's pages.
  std::string StepText(const v1::ExplanationStep& step) const {
    std::string text = step.text();
    for (const v1::Fact& fact : step.facts()) {
      const bool page = fact.name() == "page" || fact.name() == "victim";
      if (page) text += fmt::format("; {} {}", fact.name(), (fact.address() - address_) / kPageBytes);
      if (fact.value_case() == v1::Fact::kNumber) text += fmt::format(" {} {}", fact.name(), fact.number());
      if (fact.value_case() == v1::Fact::kTruth) text += fmt::format(" {} {}", fact.name(), fact.truth() ? 1 : 0);
      if (fact.name() == "next_use" && fact.value_case() == v1::Fact::kText) text += " next_use never";
    }
    return text;
  }

  void LookAtFrames() {
    if (policy_ == v1::REPLACEMENT_POLICY_LINUX) return LookAtTables();
    v1::GetPageReplacementRequest request;
    request.set_name(fmt::format("{}/processes/{}", name_, pid_));
    v1::GetPageReplacementResponse response;
    session_.Call(*session_.connection().page_replacement, &v1::PageReplacementService::Stub::GetPageReplacement, request, &response);
    frames_.assign(std::max<size_t>(frames_.size(), static_cast<size_t>(response.page_replacement().slots_size())), std::nullopt);
    for (int i = 0; i < response.page_replacement().slots_size(); ++i) {
      const v1::ReplacementSlot& slot = response.page_replacement().slots(i);
      if (slot.occupied()) frames_[static_cast<size_t>(i)] = static_cast<uint32_t>((slot.address() - address_) / kPageBytes);
    }
  }
  // Without a bound nobody numbers frames: a page stays where it is shown first, another one gets the first free place.
  void LookAtTables() {
    for (std::optional<uint32_t>& frame : frames_) {
      if (frame.has_value() && !IsMapped(*frame)) frame.reset();
    }
    std::vector<uint32_t> pages = references_;
    std::sort(pages.begin(), pages.end());
    pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
    for (const uint32_t page : pages) {
      if (std::find(frames_.begin(), frames_.end(), page) != frames_.end() || !IsMapped(page)) continue;
      auto free = std::find(frames_.begin(), frames_.end(), std::nullopt);
      if (free == frames_.end()) free = frames_.emplace(frames_.end());
      *free = page;
    }
  }
  bool IsMapped(uint32_t page) {
    v1::TranslateVirtualAddressRequest request;
    request.set_machine(name_);
    request.set_pid(pid_);
    request.set_address(address_ + page * kPageBytes);
    v1::TranslateVirtualAddressResponse response;
    session_.Call(*session_.connection().memory, &v1::MemoryService::Stub::TranslateVirtualAddress, request, &response);
    return response.mapped();
  }

  Session& session_;
  const bool keep_;
  const std::vector<uint32_t> references_;
  std::string name_;
  int32_t pid_ = 0;
  uint64_t address_ = 0;
  v1::ReplacementPolicy policy_ = v1::REPLACEMENT_POLICY_UNSPECIFIED;
  std::vector<std::optional<uint32_t>> frames_;
};

std::vector<uint32_t> ParseReferences(const std::string& text) {
  std::vector<uint32_t> references;
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(text, absl::ByAnyChar(" ,\t\n"), absl::SkipEmpty()))) {
    uint32_t page = 0;
    if (!absl::SimpleAtoi(word, &page) || page > kMostPage) {
      Fail(kExitUsage, fmt::format("--string: page numbers from 0 to {}, not \"{}\"", kMostPage, word));
    }
    references.push_back(page);
  }
  if (references.empty() || references.size() > kMostReferences) {
    Fail(kExitUsage, fmt::format("--string: from 1 to {} page numbers", kMostReferences));
  }
  return references;
}

// The table of the textbooks: a column an access, a row a frame.
void PrintRun(const Run& run, const std::vector<uint32_t>& references) {
  size_t width = 2;
  size_t rows = run.frames;
  for (const uint32_t page : references) width = std::max(width, std::to_string(page).size() + 1);
  for (const Access& access : run.accesses) rows = std::max(rows, access.frames.size());
  fmt::print("{}, {} frames\n", run.policy.name, run.frames);
  fmt::print("{:<10}", "reference");
  for (const uint32_t page : references) fmt::print("{:>{}}", page, width);
  for (size_t row = 0; row < rows; ++row) {
    fmt::print("\n{:<10}", fmt::format("frame {}", row));
    for (const Access& access : run.accesses) {
      const bool held = row < access.frames.size() && access.frames[row].has_value();
      fmt::print("{:>{}}", held ? std::to_string(*access.frames[row]) : "-", width);
    }
  }
  fmt::print("\n{:<10}", "fault");
  for (const Access& access : run.accesses) fmt::print("{:>{}}", access.faulted() ? "F" : "", width);
  fmt::print("\n{} faults\n", run.faults());
  for (size_t i = 0; i < run.accesses.size(); ++i) {
    for (const std::string& line : run.accesses[i].why) fmt::print("access {} to page {}: {}\n", i + 1, references[i], line);
  }
}

nlohmann::ordered_json RunJson(const Run& run, const std::vector<uint32_t>& references) {
  nlohmann::ordered_json accesses = nlohmann::ordered_json::array();
  for (size_t i = 0; i < run.accesses.size(); ++i) {
    const Access& access = run.accesses[i];
    nlohmann::ordered_json frames = nlohmann::ordered_json::array();
    for (const std::optional<uint32_t>& frame : access.frames) {
      frames.push_back(frame.has_value() ? nlohmann::ordered_json(*frame) : nlohmann::ordered_json());
    }
    accesses.push_back({{"page", references[i]},
                        {"minor_faults", access.minor_faults},
                        {"major_faults", access.major_faults},
                        {"frames", std::move(frames)}});
  }
  return {{"policy", run.policy.name}, {"frames", run.frames}, {"faults", run.faults()}, {"accesses", std::move(accesses)}};
}

// Faults by policy and number of frames.
void PrintSummary(const std::vector<Run>& runs, const std::vector<uint32_t>& frames) {
  std::vector<std::string> headings = {"POLICY"};
  for (const uint32_t count : frames) headings.push_back(fmt::format("{}-FRAMES", count));
  std::vector<std::vector<std::string>> rows;
  for (const Run& run : runs) {
    if (rows.empty() || rows.back()[0] != run.policy.name) rows.push_back({run.policy.name});
    rows.back().push_back(std::to_string(run.faults()));
  }
  fmt::print("{}", TableText(headings, rows));
}

void Teach(Session& session, const LessonOptions& options) {
  const std::vector<uint32_t> references = ParseReferences(options.text);
  std::vector<Policy> policies;
  for (const Policy& policy : kPolicies) {
    const auto& wanted = options.policies;
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), policy.name) != wanted.end()) policies.push_back(policy);
  }
  const bool single = policies.size() * options.frames.size() == 1;
  std::vector<Run> runs;
  for (const Policy& policy : policies) {
    for (const uint32_t frames : options.frames) {
      // A machine for each, so that none begins with what another left.
      Stage stage(session, options, single ? options.machine : fmt::format("{}-{}-{}", options.machine, policy.name, frames), references);
      runs.push_back(stage.Perform(policy, frames));
    }
  }
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Run& run : runs) list.push_back(RunJson(run, references));
  if (PrintJson(session.options(), nlohmann::ordered_json{{"runs", std::move(list)}}.dump(1) + "\n")) return;
  if (runs.size() > 1) return PrintSummary(runs, options.frames);
  PrintRun(runs[0], references);
}

// The frames of a bounded process, what its policy knows of each page.
void DescribeReplacement(Session& session, const std::string& machine, int pid) {
  v1::GetPageReplacementRequest request;
  request.set_name(fmt::format("machines/{}/processes/{}", machine, pid));
  v1::GetPageReplacementResponse response;
  session.Call(*session.connection().page_replacement, &v1::PageReplacementService::Stub::GetPageReplacement, request, &response);
  if (PrintStructured(session.options(), response)) return;
  const v1::PageReplacement& bound = response.page_replacement();
  const auto policy = std::find_if(std::begin(kPolicies), std::end(kPolicies), [&](const Policy& p) { return p.value == bound.policy(); });
  fmt::print("{}, {} frames for 0x{:x}-0x{:x}: {} accesses, {} faults, {} pages made room\n", policy->name, bound.frames(), bound.address(),
             bound.address() + bound.length_bytes(), bound.references(), bound.loads(), bound.evictions());
  std::vector<std::vector<std::string>> rows;
  for (int i = 0; i < bound.slots_size(); ++i) {
    const v1::ReplacementSlot& slot = bound.slots(i);
    const bool hand = bound.policy() == v1::REPLACEMENT_POLICY_CLOCK && static_cast<uint32_t>(i) == bound.hand();
    if (!slot.occupied()) {
      rows.push_back({std::to_string(i), "-", "-", "-", "-", "-", hand ? "<-" : ""});
      continue;
    }
    const bool optimal = bound.policy() == v1::REPLACEMENT_POLICY_OPTIMAL;
    rows.push_back({std::to_string(i), fmt::format("0x{:x}", slot.address()), std::to_string(slot.loaded()), std::to_string(slot.used()),
                    slot.accessed() ? "yes" : "no", slot.has_next_use() ? std::to_string(slot.next_use()) : (optimal ? "never" : "-"),
                    hand ? "<-" : ""});
  }
  fmt::print("{}", TableText({"FRAME", "PAGE", "LOADED", "USED", "ACCESSED", "NEXT-USE", "HAND"}, rows));
}

}  // namespace

void AddLessonCommand(CLI::App& app, Session& session) {
  CLI::App* lesson = app.add_subcommand("lesson", "Lessons of textbooks, on a machine");
  lesson->require_subcommand(1);
  CLI::App* command = lesson->add_subcommand("page-replacement", "A reference string by FIFO, LRU, second chance, optimal, and by Linux");
  const auto options = std::make_shared<LessonOptions>();
  command->add_option("--policy", options->policies, "fifo, lru, clock, optimal or linux; several with commas; without it, all")
      ->delimiter(',')
      ->check(CLI::IsMember({"fifo", "lru", "clock", "optimal", "linux"}).description(""));
  command->add_option("--frames", options->frames, "Pages that may be resident, 2 to 64; several with commas")
      ->delimiter(',')
      ->check(CLI::Range(2, 64))
      ->capture_default_str();
  command->add_option("--string", options->text, "Pages that are accessed, in order")->capture_default_str();
  command->add_option("--preset", options->preset, "Recorded machine to be like")->capture_default_str();
  command->add_option("--machine", options->machine, "Name of the machine that is made, and deleted in the end; of several, how they begin")
      ->capture_default_str();
  command->add_flag("--keep", options->keep, "Leave the machines, to be looked at");
  command->footer(
      "A process writes to its pages in the order of the string. Of one policy and number of frames the table of the textbooks is "
      "printed,\n"
      "with --explain why each page made room; of more, the faults. Under linux a memory cgroup has that limit, and Linux's reclaim "
      "decides;\n"
      "it takes up to 32 pages at a time. For a process of your own: mmlab set-page-replacement.\n\n"
      "Examples:\n  mmlab lesson page-replacement --in-process\n"
      "  mmlab lesson page-replacement --policy lru --explain\n"
      "  mmlab lesson page-replacement --policy fifo --frames 3,4 --string \"1 2 3 4 1 2 5 1 2 3 4 5\"    Belady's anomaly");
  command->callback([options, &session] { Teach(session, *options); });

  struct ProcessOptions {
    std::string machine;
    int pid = 0;
  };
  const auto process = std::make_shared<ProcessOptions>();
  CLI::App* describe =
      app.get_subcommand("describe")->add_subcommand("page-replacement", "The frames of a process that set-page-replacement bounds");
  describe->add_option("machine", process->machine, "Machine")->required();
  describe->add_option("pid", process->pid, "Process id")->required();
  describe->callback([process, &session] { DescribeReplacement(session, process->machine, process->pid); });
}

}  // namespace mmlab
