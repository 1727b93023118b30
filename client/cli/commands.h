#ifndef MMLAB_CLIENT_CLI_COMMANDS_H_
#define MMLAB_CLIENT_CLI_COMMANDS_H_

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Option.hpp>

#include "client/cli/session.h"

namespace mmlab {

// Each adds its subcommands to the command line; a subcommand runs as its callback and may throw CommandFailure.
void AddMachineCommands(CLI::App& app, Session& session);    // create, get, describe, delete, boot, check
void AddProcCommand(CLI::App& app, Session& session);        // proc, kernel-log
void AddOperationCommands(CLI::App& app, Session& session);  // mmap, fork, alloc-pages, ...; op
// `explain VERB ...`: the same operations with the decisions behind their outcome.
void AddExplainCommand(CLI::App& app, Session& session, GlobalOptions& options);
void AddSlabCommands(CLI::App& app, Session& session);    // slabtop, slab-cache, slab-object
void AddCgroupCommands(CLI::App& app, Session& session);  // cgroup, get cgroups. After AddMachineCommands.
// get layout, get domains, dmesg, translate, boot --capture. After AddMachineCommands.
void AddLayoutCommands(CLI::App& app, Session& session);
void AddProcpsCommands(CLI::App& app, Session& session);  // top, vmstat
void AddReplayCommand(CLI::App& app, Session& session);   // replay
void AddWatchCommand(CLI::App& app, Session& session);    // watch

// The whole command: parses, runs, returns the exit code.
int RunCommandLine(int argc, char** argv);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_COMMANDS_H_
