#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

// What the commands take; each uses what it needs.
struct CgroupOptions {
  std::string machine;
  std::string cgroup;
  std::string file;
  std::string value;
  int pid = 0;
};

void Apply(Session& session, const CgroupOptions& options, v1::Operation operation, const std::string& verb) {
  v1::ExecuteBatchRequest batch;
  batch.set_machine("machines/" + options.machine);
  *batch.add_operations() = std::move(operation);
  v1::ExecuteBatchResponse response;
  session.Call(*session.connection().operations, &v1::OperationService::Stub::ExecuteBatch, batch, &response);
  const v1::Outcome& outcome = response.outcomes(0);
  if (!PrintStructured(session.options(), outcome)) fmt::print("{}", OutcomeText(verb, outcome));
}

void Write(Session& session, const CgroupOptions& options, const std::string& file, const std::string& value) {
  v1::Operation operation;
  v1::WriteCgroupFileRequest& write = *operation.mutable_write_cgroup_file();
  write.set_cgroup(options.cgroup);
  write.set_file(file);
  write.set_value(value);
  write.set_explain(session.options().explain);
  Apply(session, options, operation, "write_cgroup_file");
}

void ReadCgroupFile(Session& session, const CgroupOptions& options) {
  v1::ReadProcFileRequest request;
  request.set_machine("machines/" + options.machine);
  request.set_path(absl::StrCat("/sys/fs/cgroup/", options.cgroup, options.cgroup.empty() ? "" : "/", options.file));
  v1::ReadProcFileResponse response;
  session.Call(*session.connection().proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
  std::fwrite(response.content().data(), 1, response.content().size(), stdout);
}

std::string LimitText(bool limited, int64_t bytes) { return limited ? BytesText(bytes) : "max"; }

void GetCgroups(Session& session, const std::string& machine) {
  v1::ListCgroupsResponse all;
  v1::ListCgroupsRequest request;
  request.set_parent("machines/" + machine);
  request.set_page_size(1000);
  do {
    v1::ListCgroupsResponse page;
    session.Call(*session.connection().cgroups, &v1::CgroupService::Stub::ListCgroups, request, &page);
    all.mutable_cgroups()->MergeFrom(page.cgroups());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (PrintStructured(session.options(), all)) return;
  std::vector<std::vector<std::string>> rows;
  for (const v1::Cgroup& cgroup : all.cgroups()) {
    std::vector<std::string> row = {"/" + cgroup.path(), absl::StrCat(cgroup.pids_size())};
    if (cgroup.memory_controller()) {
      row.insert(row.end(), {BytesText(cgroup.current_bytes()), BytesText(cgroup.peak_bytes()), BytesText(cgroup.low_bytes()),
                             LimitText(cgroup.has_high_bytes(), cgroup.high_bytes()), LimitText(cgroup.has_max_bytes(), cgroup.max_bytes()),
                             BytesText(cgroup.swap_current_bytes()), absl::StrCat(cgroup.oom_kills())});
    } else {
      row.insert(row.end(), 7, "-");
    }
    rows.push_back(std::move(row));
  }
  fmt::print("{}", TableText({"CGROUP", "PROCESSES", "CURRENT", "PEAK", "LOW", "HIGH", "MAX", "SWAP", "OOM KILLS"}, rows));
}

void AddCgroup(CLI::App& app, Session& session) {
  CLI::App* cgroup = app.add_subcommand("cgroup", "Control groups of a machine: make, remove, fill, limit and read them");
  cgroup->require_subcommand(1);
  cgroup->footer(
      "Examples:\n  mmlab cgroup set lab1 / cgroup.subtree_control +memory\n  mmlab cgroup create lab1 web\n"
      "  mmlab cgroup set lab1 web memory.max 64M\n  mmlab cgroup move lab1 web 7\n  mmlab cgroup get lab1 web memory.stat");
  const auto options = std::make_shared<CgroupOptions>();
  const auto add = [&](const char* name, const char* help) {
    CLI::App* command = cgroup->add_subcommand(name, help);
    command->add_option("machine", options->machine, "Machine")->required();
    command->add_option("cgroup", options->cgroup, "Path below the root of the hierarchy: web, web/db; / for the root")
        ->required()
        ->transform([](std::string path) {
          path.erase(0, std::min(path.find_first_not_of('/'), path.size()));
          return path;
        });
    return command;
  };
  add("create", "Make a cgroup (mkdir)")->callback([options, &session] {
    v1::Operation operation;
    operation.mutable_create_cgroup()->set_cgroup(options->cgroup);
    operation.mutable_create_cgroup()->set_explain(session.options().explain);
    Apply(session, *options, operation, "create_cgroup");
  });
  add("delete", "Remove a cgroup without processes (rmdir)")->callback([options, &session] {
    v1::Operation operation;
    operation.mutable_remove_cgroup()->set_cgroup(options->cgroup);
    operation.mutable_remove_cgroup()->set_explain(session.options().explain);
    Apply(session, *options, operation, "remove_cgroup");
  });
  CLI::App* move = add("move", "Move a process into a cgroup (cgroup.procs)");
  move->add_option("pid", options->pid, "Process")->required();
  move->callback([options, &session] { Write(session, *options, "cgroup.procs", absl::StrCat(options->pid)); });
  CLI::App* get = add("get", "Print a file of a cgroup");
  get->add_option("file", options->file, "memory.stat, memory.current, ...")->required();
  get->callback([options, &session] { ReadCgroupFile(session, *options); });
  CLI::App* set = add("set", "Write a file of a cgroup");
  set->add_option("file", options->file, "memory.max, memory.high, memory.reclaim, cgroup.subtree_control, ...")->required();
  set->add_option("value", options->value, "What is written: 64M, max, +memory")->required();
  set->callback([options, &session] { Write(session, *options, options->file, options->value); });
}

}  // namespace

void AddCgroupCommands(CLI::App& app, Session& session) {
  AddCgroup(app, session);
  CLI::App* get = app.get_subcommand("get");
  const auto machine = std::make_shared<std::string>();
  CLI::App* cgroups = get->add_subcommand("cgroups", "Control groups of a machine, with what they use and may use");
  cgroups->add_option("machine", *machine, "Machine")->required();
  cgroups->callback([machine, &session] { GetCgroups(session, *machine); });
}

}  // namespace mmlab
