#include <fmt/core.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

struct ProcOptions {
  std::string machine;
  std::string path;
};

// Of a machine, or of a process.
std::vector<std::string> FilesOf(Session& session, const std::string& parent) {
  std::vector<std::string> paths;
  v1::ListProcFilesRequest request;
  request.set_parent(parent);
  request.set_page_size(1000);
  do {
    v1::ListProcFilesResponse page;
    session.Call(*session.connection().proc, &v1::ProcService::Stub::ListProcFiles, request, &page);
    paths.insert(paths.end(), page.paths().begin(), page.paths().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return paths;
}

void ListFiles(Session& session, const std::string& machine) {
  for (const std::string& path : FilesOf(session, "machines/" + machine)) fmt::print("{}\n", path);
}

void WriteFile(const std::filesystem::path& path, const std::string& content) {
  std::error_code failure;
  std::filesystem::create_directories(path.parent_path(), failure);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) Fail(kExitLocalFile, fmt::format("cannot write {}", path.string()));
}

// Writes all files below /proc into a folder.
void Export(Session& session, const std::string& machine, const std::string& folder) {
  size_t written = 0;
  for (const std::string& path : FilesOf(session, "machines/" + machine)) {
    const std::filesystem::path below = std::filesystem::path(path).lexically_normal();
    if (below.is_absolute() || below.empty() || *below.begin() == "..") continue;  // Never outside the folder, whatever a server says.
    v1::ReadProcFileRequest request;
    request.set_machine("machines/" + machine);
    request.set_path(path);
    v1::ReadProcFileResponse response;
    const grpc::Status read =
        session.connection().Call(*session.connection().proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
    if (read.error_code() == grpc::StatusCode::NOT_FOUND) continue;  // Its process ended meanwhile.
    session.Check(read);
    WriteFile(std::filesystem::path(folder) / below, response.content());
    ++written;
  }
  fmt::print("{} files of machine/{} written to {}\n", written, machine, folder);
}

}  // namespace

void AddProcCommand(CLI::App& app, Session& session) {
  CLI::App* proc = app.add_subcommand("proc", "Print a /proc file of a machine, byte for byte");
  const auto options = std::make_shared<ProcOptions>();
  proc->add_option("machine", options->machine, "Machine");
  proc->add_option("file", options->path, "Path below /proc: meminfo, 1/maps, sys/vm/overcommit_memory; without it, lists them");
  proc->footer("Examples:\n  mmlab proc lab1 meminfo\n  mmlab proc lab1 1/maps\n  mmlab proc export lab1 /tmp/lab1-proc");
  CLI::App* exporting = proc->add_subcommand("export", "Write the whole simulated /proc into a folder");
  const auto target = std::make_shared<ProcOptions>();
  exporting->add_option("machine", target->machine, "Machine")->required();
  exporting->add_option("folder", target->path, "Folder, made if it is not there; what is in it stays or is overwritten")->required();
  exporting->footer("Example:\n  mmlab proc export lab1 /tmp/lab1-proc && prometheus-node-exporter --path.procfs=/tmp/lab1-proc");
  exporting->callback([target, &session] { Export(session, target->machine, target->path); });
  proc->callback([exporting, options, &session] {
    if (exporting->parsed()) return;
    if (options->machine.empty()) throw CLI::RequiredError("machine");
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
