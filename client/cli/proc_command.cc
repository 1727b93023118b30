#include <fmt/core.h>

#include <cstdio>
#include <memory>

#include "client/cli/commands.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

struct ProcOptions {
  std::string machine;
  std::string path;
};

void ListFiles(Session& session, const std::string& machine) {
  v1::ListProcFilesRequest request;
  request.set_parent("machines/" + machine);
  request.set_page_size(1000);
  do {
    v1::ListProcFilesResponse page;
    session.Call(*session.connection().proc, &v1::ProcService::Stub::ListProcFiles, request, &page);
    for (const std::string& path : page.paths()) fmt::print("{}\n", path);
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
}

void AddKernelLogCommand(CLI::App& app, Session& session) {
  CLI::App* command = app.add_subcommand("kernel-log", "Print what a machine's kernel logged since boot: OOM reports");
  struct LogOptions {
    std::string machine;
    bool raw = false;
  };
  const auto options = std::make_shared<LogOptions>();
  command->add_option("machine", options->machine, "Machine")->required();
  command->add_flag("-r,--raw", options->raw, "With the level of each line in front");
  command->footer("Example:\n  mmlab kernel-log lab1");
  command->callback([options, &session] {
    v1::ReadKernelLogRequest request;
    request.set_machine("machines/" + options->machine);
    request.set_raw(options->raw);
    v1::ReadKernelLogResponse response;
    session.Call(*session.connection().proc, &v1::ProcService::Stub::ReadKernelLog, request, &response);
    std::fwrite(response.content().data(), 1, response.content().size(), stdout);
  });
}

}  // namespace

void AddProcCommand(CLI::App& app, Session& session) {
  AddKernelLogCommand(app, session);
  CLI::App* proc = app.add_subcommand("proc", "Print a /proc file of a machine, byte for byte");
  const auto options = std::make_shared<ProcOptions>();
  proc->add_option("machine", options->machine, "Machine")->required();
  proc->add_option("file", options->path, "Path below /proc: meminfo, 1/maps, sys/vm/overcommit_memory; without it, lists them");
  proc->footer("Examples:\n  mmlab proc lab1 meminfo\n  mmlab proc lab1 1/maps");
  proc->callback([options, &session] {
    if (options->path.empty()) return ListFiles(session, options->machine);
    v1::ReadProcFileRequest request;
    request.set_machine("machines/" + options->machine);
    request.set_path(options->path);
    v1::ReadProcFileResponse response;
    session.Call(*session.connection().proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
    std::fwrite(response.content().data(), 1, response.content().size(), stdout);
  });
}

}  // namespace mmlab
