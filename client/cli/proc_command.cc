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
#include "client/cli/proc_mount.h"

namespace mmlab {
namespace {

struct ProcOptions {
  std::string machine;
  std::string path;
  int64_t offset = 0;
  int64_t length = 0;
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

// Writes all files below /proc into a folder; their number.
size_t Export(Session& session, const std::string& machine, const std::string& folder) {
  size_t written = 0;
  for (const std::string& path : FilesOf(session, "machines/" + machine)) {
    const std::filesystem::path below = std::filesystem::path(path).lexically_normal();
    if (below.filename() == "pagemap") continue;  // Eight bytes for each page of user space, nearly all of them zero.
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
  return written;
}

// A command that sees the machine's files, as they are now, as /proc.
void Mount(Session& session, const std::string& machine, const std::vector<std::string>& command) {
  std::string folder = (std::filesystem::temp_directory_path() / "mmlab-proc-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) Fail(kExitLocalFile, fmt::format("cannot make {}", folder));
  struct Remover {
    const std::string& folder;
    ~Remover() {
      std::error_code failure;
      std::filesystem::remove_all(folder, failure);
    }
  } remover{folder};
  Export(session, machine, folder);
  if (const int code = RunWithProc(folder, command); code != kExitDone) throw CommandFailure{code};
}

void AddExportCommand(CLI::App& proc, Session& session) {
  CLI::App* command = proc.add_subcommand("export", "Write the whole simulated /proc into a folder");
  const auto options = std::make_shared<ProcOptions>();
  command->add_option("machine", options->machine, "Machine")->required();
  command->add_option("folder", options->path, "Folder, made if it is not there; what is in it stays or is overwritten")->required();
  command->footer("Example:\n  mmlab proc export lab1 /tmp/lab1-proc && prometheus-node-exporter --path.procfs=/tmp/lab1-proc");
  command->callback([options, &session] {
    const size_t written = Export(session, options->machine, options->path);
    fmt::print("{} files of machine/{} written to {}\n", written, options->machine, options->path);
  });
}

void AddMountCommand(CLI::App& proc, Session& session) {
  CLI::App* command = proc.add_subcommand("mount", "Run a command that sees the simulated /proc instead of this host's");
  struct MountOptions {
    std::string machine;
    std::vector<std::string> command;
  };
  const auto options = std::make_shared<MountOptions>();
  command->add_option("machine", options->machine, "Machine")->required();
  command->add_option("command", options->command, "The command and its arguments, after --")->required();
  command->footer(
      "It ends with the command's exit code; 126 = this host does not allow user namespaces, 127 = no such command.\n"
      "Examples:\n  mmlab proc mount lab1 free\n  mmlab proc mount lab1 -- slabtop -o -s c");
  command->callback([options, &session] { Mount(session, options->machine, options->command); });
}

}  // namespace

void AddProcCommand(CLI::App& app, Session& session) {
  CLI::App* proc = app.add_subcommand("proc", "Print a /proc file of a machine, byte for byte");
  const auto options = std::make_shared<ProcOptions>();
  proc->add_option("machine", options->machine, "Machine");
  proc->add_option("file", options->path, "Path below /proc: meminfo, 1/maps, sys/vm/overcommit_memory; without it, lists them");
  proc->add_option("--offset", options->offset,
                   "Of kpageflags, kpagecount, kpagecgroup and PID/pagemap: byte to start at, 8 for each page");
  proc->add_option("--length", options->length, "Of these: how many bytes, at most 1 MiB; 0 = as many as there are, up to that")
      ->capture_default_str();
  proc->footer(
      "Examples:\n  mmlab proc lab1 meminfo\n  mmlab proc lab1 1/maps\n  mmlab proc export lab1 /tmp/lab1-proc\n  mmlab proc mount lab1 "
      "free");
  AddExportCommand(*proc, session);
  AddMountCommand(*proc, session);
  proc->callback([proc, options, &session] {
    if (!proc->get_subcommands().empty()) return;
    if (options->machine.empty()) throw CLI::RequiredError("machine");
    if (options->path.empty()) return ListFiles(session, options->machine);
    v1::ReadProcFileRequest request;
    request.set_machine("machines/" + options->machine);
    request.set_path(options->path);
    request.set_offset_bytes(options->offset);
    request.set_length_bytes(options->length);
    v1::ReadProcFileResponse response;
    session.Call(*session.connection().proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
    std::fwrite(response.content().data(), 1, response.content().size(), stdout);
  });
}

}  // namespace mmlab
