#ifndef MMLAB_CLIENT_CLI_COMMANDS_H_
#define MMLAB_CLIENT_CLI_COMMANDS_H_

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Option.hpp>
#include <string>

#include "client/cli/session.h"

namespace mmlab {

// Each adds its subcommands to the command line; a subcommand runs as its callback and may throw CommandFailure.
void AddMachineCommands(CLI::App& app, Session& session);    // create, get, describe, delete, boot, check
void AddProcCommand(CLI::App& app, Session& session);        // proc
void AddOperationCommands(CLI::App& app, Session& session);  // mmap, fork, alloc-pages, ...; op
// `explain VERB ...`: the same operations with the decisions behind their outcome.
void AddExplainCommand(CLI::App& app, Session& session, GlobalOptions& options);
void AddSlabCommands(CLI::App& app, Session& session);    // slabtop, get caches, describe cache, describe object; after AddMachineCommands
void AddCompareCommand(CLI::App& app, Session& session);  // compare slab-allocators
// get layout, get domains, dmesg, translate, explain boot, boot --capture. After AddMachineCommands and AddExplainCommand.
void AddLayoutCommands(CLI::App& app, Session& session);
// describe mm, get vmas, memory read, memory write. After AddMachineCommands.
void AddMemoryCommands(CLI::App& app, Session& session);
void AddCgroupCommands(CLI::App& app, Session& session);  // cgroup, get cgroups. After AddMachineCommands.
void AddProcpsCommands(CLI::App& app, Session& session);  // top, vmstat
void AddReplayCommand(CLI::App& app, Session& session);   // replay
// lesson page-replacement, describe page-replacement. After AddMachineCommands.
void AddLessonCommand(CLI::App& app, Session& session);
void AddWatchCommand(CLI::App& app, Session& session);  // watch

// The program of `exec --default`: one page each of text, constants and data, and four of bss (operation_commands.cc).
v1::ElfImage DefaultImage(v1::Layout layout);

// What describe process and translate show of memory's structures (memory_commands.cc).
void DescribeVmaStore(Session& session, const std::string& machine, int pid, const std::string& store);  // "rbtree" or "maple".
std::string MmText(Session& session, const std::string& machine, int pid);
struct VirtualAddressQuery {
  std::string machine, address, access = "read";
  int pid = 0;
  bool kernel_mode = false;
};
void TranslateVirtual(Session& session, const VirtualAddressQuery& query);

// The whole command: parses, runs, returns the exit code.
int RunCommandLine(int argc, char** argv);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_COMMANDS_H_
