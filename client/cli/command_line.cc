#include <fmt/core.h>

#include <map>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "server/service/server.h"

namespace mmlab {
namespace {

constexpr char kFooter[] = R"(
Examples:
  mmlab create machine lab1 --preset arm64-1G      a simulated ARM64 computer with 1 GiB
  mmlab get machines -o wide
  mmlab top lab1                                   its processes; mmlab vmstat lab1, mmlab slabtop lab1
  mmlab proc lab1 meminfo                          what its /proc/meminfo says
  mmlab create process lab1 --comm shell           prints the new process's pid
  mmlab exec lab1 1 --default                      gives it a small program
  mmlab mmap lab1 1 --length 64K --prot rw --flags private,anonymous
  mmlab explain store lab1 1 --address 0xfffff7fed000 --length 1
  mmlab replay tests/conformance/data/traces/arm64 --in-process

Exit codes: 0 done; 1 a check failed; 2 usage; 3 no change; 4 cannot connect; 5 a local file; 64 + gRPC code for a status of the server.
What the simulated kernel refuses (an errno, a signal) is an answer that is printed: exit 0.)";

}  // namespace

int RunCommandLine(int argc, char** argv) {
  GlobalOptions options;
  Session session(options);
  CLI::App app("mmlab: simulated computers and their memory, as Linux manages it", "mmlab");
  app.footer(kFooter);
  app.set_version_flag("--version", Version());
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", options.server, "Server to talk to, HOST:PORT")->envname("MMLAB_SERVER")->capture_default_str();
  app.add_flag("--in-process", options.in_process, "Run the server inside this command; its machines end with it")
      ->envname("MMLAB_IN_PROCESS");
  const std::map<std::string, OutputFormat> formats = {{"table", OutputFormat::kTable},
                                                       {"wide", OutputFormat::kWide},
                                                       {"json", OutputFormat::kJson},
                                                       {"yaml", OutputFormat::kYaml},
                                                       {"name", OutputFormat::kName}};
  app.add_option_function<std::string>(
         "-o,--output", [&](const std::string& name) { options.output = formats.at(name); }, "table, wide, json, yaml or name")
      ->check(CLI::IsMember({"table", "wide", "json", "yaml", "name"}).description(""))
      ->envname("MMLAB_OUTPUT");
  app.add_option("--timeout", options.timeout_seconds, "Seconds that one call may take")
      ->check(CLI::Range(1, 3600))
      ->envname("MMLAB_TIMEOUT")
      ->capture_default_str();
  app.add_flag("--explain", options.explain, "Show the decisions behind an operation's outcome")->envname("MMLAB_EXPLAIN");

  AddMachineCommands(app, session);
  AddProcCommand(app, session);
  AddOperationCommands(app, session);
  AddExplainCommand(app, session, options);
  AddSlabCommands(app, session);
  AddCgroupCommands(app, session);
  AddCompareCommand(app, session);
  AddLayoutCommands(app, session);
  AddMemoryCommands(app, session);
  AddProcpsCommands(app, session);
  AddReplayCommand(app, session);
  AddLessonCommand(app, session);
  AddWatchCommand(app, session);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  } catch (const CommandFailure& failure) {
    return failure.exit_code;
  }
  return kExitDone;
}

}  // namespace mmlab
