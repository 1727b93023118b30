// The mmlab command from its arguments to its exit code and output, against a server in this process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "server/service/server.h"

namespace mmlab {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

// The exit code that stands for a status of the server.
constexpr int StatusExit(grpc::StatusCode code) { return kExitStatusBase + static_cast<int>(code); }

struct CommandRun {
  int exit_code;
  std::string out;
  std::string err;
};

CommandRun Mmlab(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "mmlab");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  CommandRun run;
  run.exit_code = RunCommandLine(static_cast<int>(argv.size()), argv.data());
  std::fflush(stdout);
  run.out = testing::internal::GetCapturedStdout();
  run.err = testing::internal::GetCapturedStderr();
  return run;
}

class CommandLineTest : public testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.grpc_address = "127.0.0.1:0";
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    setenv("MMLAB_SERVER", absl::StrCat("127.0.0.1:", server_->grpc_port()).c_str(), 1);
  }
  void TearDown() override { unsetenv("MMLAB_SERVER"); }

  // A machine with one process that runs the built-in program; returns its pid.
  std::string MachineWithProcess() {
    EXPECT_EQ(Mmlab({"create", "machine", "lab1", "--preset", "686-1G"}).exit_code, 0);
    const std::string out = Mmlab({"create", "process", "lab1", "--comm", "shell", "--uid", "1000"}).out;
    EXPECT_THAT(out, StartsWith("pid "));
    const std::string pid = out.substr(4, out.size() - 5);
    EXPECT_EQ(Mmlab({"exec", "lab1", pid, "--default"}).out, "0x80480c0\n");
    return pid;
  }

  std::unique_ptr<Server> server_;
};

TEST_F(CommandLineTest, MachinesComeAndGo) {
  EXPECT_THAT(Mmlab({"get", "machines"}).err, StartsWith("No machines."));
  EXPECT_EQ(Mmlab({"create", "machine", "lab1", "--preset", "arm64-1G", "--dry-run"}).out, "machine/lab1 would be created (dry run)\n");
  EXPECT_EQ(Mmlab({"create", "machine", "lab1", "--preset", "arm64-1G"}).out, "machine/lab1 created\n");
  EXPECT_EQ(Mmlab({"get", "machines", "-o", "name"}).out, "machines/lab1\n");
  EXPECT_THAT(
      Mmlab({"get", "machines"}).out,
      MatchesRegex("NAME  STATE    LAYOUT  MEMORY  FREE   PROCESSES  AGE\nlab1  Running  arm64   977Mi   [0-9]+Mi  [0-9]+ +[0-9]s\n"));
  EXPECT_THAT(Mmlab({"get", "machines", "-o", "wide"}).out, HasSubstr("arm64-1G"));
  EXPECT_THAT(Mmlab({"get", "machines", "lab1", "-o", "json"}).out, AllOf(StartsWith("{\n"), HasSubstr("\"name\": \"machines/lab1\"")));
  EXPECT_THAT(Mmlab({"get", "machines", "-o", "yaml"}).out, StartsWith("machines:\n  - name: machines/lab1\n"));
  EXPECT_THAT(Mmlab({"describe", "machine", "lab1"}).out, AllOf(HasSubstr("\nZONE "), HasSubstr("\nDMA ")));
  EXPECT_EQ(Mmlab({"boot", "machine", "lab1"}).out, "machine/lab1 booted\n");
  EXPECT_THAT(Mmlab({"check", "machine", "lab1"}).out, StartsWith("machine/lab1 consistent (state hash "));
  EXPECT_EQ(Mmlab({"delete", "machine", "lab1"}).out, "machine/lab1 deleted\n");
  EXPECT_EQ(Mmlab({"delete", "machine", "lab1"}).exit_code, StatusExit(grpc::NOT_FOUND));
  EXPECT_EQ(Mmlab({"delete", "machine", "lab1", "--ignore-not-found"}).out, "machine/lab1 unchanged (there is none)\n");
  EXPECT_EQ(Mmlab({"delete", "machine", "lab1", "--ignore-not-found", "--error-unchanged"}).exit_code, kExitUnchanged);
}

TEST_F(CommandLineTest, TablesFitEightyColumns) {
  MachineWithProcess();
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"get", "machines"}, {"get", "presets"}, {"get", "processes", "lab1"}, {"describe", "machine", "lab1"}}) {
    for (const std::string& line : std::vector<std::string>(absl::StrSplit(Mmlab(arguments).out, '\n'))) {
      EXPECT_LE(line.size(), 80u) << line;
    }
  }
}

TEST_F(CommandLineTest, OperationsPrintWhatTheKernelAnswers) {
  const std::string pid = MachineWithProcess();
  const std::string address = Mmlab({"mmap", "lab1", pid, "--length", "64K", "--prot", "r", "--flags", "private,anonymous"}).out;
  EXPECT_THAT(address, MatchesRegex("0x[0-9a-f]+\n"));
  const std::string start = address.substr(0, address.size() - 1);
  EXPECT_EQ(Mmlab({"load", "lab1", pid, "--address", start, "--length", "4"}).out, "done=1 value=0x0 faults=1+0\n");
  // What the simulated kernel refuses is an answer, not a failure of the command.
  const CommandRun store = Mmlab({"store", "lab1", pid, "--address", start, "--length", "4", "--value", "1"});
  EXPECT_EQ(store.exit_code, kExitDone);
  EXPECT_EQ(store.out, "done=0 value=0x0 faults=0+0\nSIGSEGV (SEGV_ACCERR) at " + start + "\n");
  EXPECT_EQ(Mmlab({"munmap", "lab1", pid, "--address", "0x1", "--length", "1"}).out, "-1 EINVAL (errno 22)\n");
  EXPECT_THAT(Mmlab({"explain", "store", "lab1", pid, "--address", "0x10", "--length", "1"}).out, HasSubstr("vma_lookup"));
  EXPECT_EQ(Mmlab({"op", "lab1", "{\"munmap\": {\"pid\": " + pid + ", \"address\": \"1\", \"length_bytes\": \"1\"}}"}).out,
            "-1 EINVAL (errno 22)\n");
  EXPECT_EQ(Mmlab({"sysctl", "lab1", "vm.overcommit_memory=2"}).out, "vm.overcommit_memory = 2\n");
  EXPECT_THAT(Mmlab({"proc", "lab1", pid + "/maps"}).out, HasSubstr("[stack]\n"));
  const CommandRun text = Mmlab({"exec", "lab1", pid, "CMakeLists.txt"});
  EXPECT_EQ(text.exit_code, kExitLocalFile);
  EXPECT_EQ(text.err, "error: CMakeLists.txt: not an ELF file\n");
  EXPECT_THAT(Mmlab({"proc", "lab1"}).out, HasSubstr("meminfo\n"));
  EXPECT_THAT(Mmlab({"alloc-pages", "lab1", "--gfp", "kernel", "--order", "2"}).out, MatchesRegex("pfn 0x[0-9a-f]+\n"));
}

TEST_F(CommandLineTest, MemoryIsShownAsStructuresTablesAndBytes) {
  const std::string pid = MachineWithProcess();
  EXPECT_THAT(Mmlab({"describe", "process", "lab1", pid}).out, AllOf(HasSubstr("mm_struct:\n"), HasSubstr("pgtables_bytes")));
  EXPECT_THAT(Mmlab({"describe", "mm", "lab1", pid}).out, AllOf(HasSubstr("  map_count "), HasSubstr("AT_PHDR")));
  EXPECT_THAT(Mmlab({"describe", "mm", "lab1", pid, "-o", "json"}).out, HasSubstr("\"mmap_base\": "));
  EXPECT_THAT(Mmlab({"get", "vmas", "lab1", pid, "-o", "wide"}).out, AllOf(StartsWith("VM_START-VM_END"), HasSubstr("GROWSDOWN")));
  EXPECT_THAT(Mmlab({"describe", "process", "lab1", pid, "--store", "rbtree"}).out,
              AllOf(StartsWith("list and red-black tree (4.12)"), HasSubstr("\n0 black ")));
  EXPECT_THAT(Mmlab({"describe", "process", "lab1", pid, "--store", "maple"}).out,
              AllOf(StartsWith("maple tree (6.1)"), HasSubstr("\n0 maple_leaf_64 0-ffffffff ")));
  EXPECT_EQ(Mmlab({"describe", "process", "lab1", pid, "--store", "list"}).exit_code, kExitUsage);

  const std::string mapped = Mmlab({"mmap", "lab1", pid, "--length", "4K", "--prot", "rw", "--flags", "private,anonymous"}).out;
  const std::string address = mapped.substr(0, mapped.size() - 1);
  Mmlab({"store", "lab1", pid, "--address", address, "--length", "4", "--value", "0x6f6c6568"});
  const std::string walk = Mmlab({"translate", "lab1", address, "--pid", pid, "--access", "exec"}).out;
  EXPECT_THAT(walk, AllOf(StartsWith("region    user\nbase      CR3 0x"), HasSubstr("\npgd "), HasSubstr("[P RW US A D]\nphysical  0x")));
  EXPECT_THAT(Mmlab({"translate", "lab1", address, "--pid", pid, "-o", "wide"}).out, HasSubstr("may be written"));
  EXPECT_THAT(Mmlab({"translate", "lab1", "0xc0000000"}).out,
              AllOf(StartsWith("region    lowmem\nbase      CR3 0x1e74000\n"), HasSubstr("\npte "), HasSubstr("physical  0x0")));
  EXPECT_THAT(Mmlab({"translate", "lab1", "0xc2400000"}).out, HasSubstr(": 0x24001e3 block -> 0x2400000  [P RW A D PS G]\n"));
  EXPECT_THAT(Mmlab({"get", "pagemap", "lab1", pid, "--start", address}).out,
              AllOf(StartsWith("ADDRESS "), HasSubstr("\n" + address + " "), HasSubstr(" memory "), HasSubstr("anonymous")));
  EXPECT_EQ(Mmlab({"get", "pagemap", "lab1", pid, "--start", "0xc0001000"}).exit_code, StatusExit(grpc::OUT_OF_RANGE));
  EXPECT_EQ(Mmlab({"proc", "lab1", pid + "/pagemap", "--offset", "8", "--length", "16"}).out, std::string(16, '\0'));
  EXPECT_EQ(Mmlab({"proc", "lab1", pid + "/pagemap", "--offset", "4"}).exit_code, StatusExit(grpc::INVALID_ARGUMENT));
  EXPECT_THAT(Mmlab({"translate", "lab1", "0x1000000", "--from", "cpu"}).out, StartsWith("0x1000000\n"));
  EXPECT_EQ(Mmlab({"translate", "lab1", "0x1000000", "--from", "cpu", "--pid", pid}).exit_code, kExitUsage);

  EXPECT_THAT(Mmlab({"memory", "read", "lab1", address, "--pid", pid, "--length", "4"}).out, HasSubstr("68 65 6c 6f "));
  const size_t at = walk.find("physical  ") + 10;
  const std::string physical = walk.substr(at, walk.find_first_of(",\n", at) - at);
  EXPECT_EQ(Mmlab({"memory", "write", "lab1", physical, "--hex", "6a 65"}).out, "2\n");
  EXPECT_EQ(Mmlab({"memory", "read", "lab1", physical, "--length", "4", "--raw"}).out, "jelo");
  EXPECT_EQ(Mmlab({"memory", "write", "lab1", "0x7000000000", "--text", "x"}).out, "-1 EFAULT (errno 14)\n");
  EXPECT_THAT(Mmlab({"--explain", "memory", "write", "lab1", "0x7000000000", "--text", "x"}).out, HasSubstr("nothing answers"));
  EXPECT_EQ(Mmlab({"memory", "write", "lab1", physical, "--hex", "6"}).exit_code, kExitUsage);
}

TEST_F(CommandLineTest, MachinesAreMadeFromAFile) {
  const std::string path = testing::TempDir() + "mmlab-spec.yaml";
  std::ofstream(path) << "preset: 686-1G\nhostname: from-a-file\nsysctls:\n  vm.overcommit_memory: \"1\"\n";
  EXPECT_EQ(Mmlab({"create", "machine", "lab2", "-f", path}).out, "machine/lab2 created\n");
  EXPECT_THAT(Mmlab({"get", "machines", "lab2", "-o", "json"}).out, HasSubstr("\"hostname\": \"from-a-file\""));
  std::ofstream(path) << "preset: 686-1G\ncolour: blue\n";
  const CommandRun wrong = Mmlab({"create", "machine", "lab3", "-f", path});
  EXPECT_EQ(wrong.exit_code, kExitLocalFile);
  EXPECT_THAT(wrong.err, HasSubstr("colour"));
  std::filesystem::remove(path);
}

struct ExitCase {
  const char* name;
  std::vector<std::string> arguments;
  int exit_code;
  const char* err;  // Part of what stderr says.
};

class ExitCodeTest : public CommandLineTest, public testing::WithParamInterface<ExitCase> {};

TEST_P(ExitCodeTest, SaysWhatWentWrongOnStderrOnly) {
  const CommandRun run = Mmlab(GetParam().arguments);
  EXPECT_EQ(run.exit_code, GetParam().exit_code) << run.err;
  EXPECT_THAT(run.err, HasSubstr(GetParam().err));
  EXPECT_THAT(run.out, IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    Commands, ExitCodeTest,
    testing::Values(
        ExitCase{"NoVerb", {}, kExitUsage, "subcommand"},         //
        ExitCase{"UnknownVerb", {"frobnicate"}, kExitUsage, ""},  //
        ExitCase{"UnknownOutput", {"get", "machines", "-o", "xml"}, kExitUsage, "xml"},
        ExitCase{"BadSize", {"create", "machine", "a", "--ram", "lots"}, kExitUsage, "--ram"},
        ExitCase{"BadLayout", {"create", "machine", "a", "--layout", "sparc"}, kExitUsage, "--layout"},
        ExitCase{"BadJson", {"op", "a", "{"}, kExitUsage, "operation"},
        ExitCase{"ExecWithoutProgram", {"exec", "a", "2"}, kExitUsage, "--default"},
        ExitCase{"NobodyAnswers", {"--server", "127.0.0.1:1", "--timeout", "1", "get", "machines"}, kExitCannotConnect, "127.0.0.1:1"},
        ExitCase{"NoSpecFile", {"create", "machine", "a", "-f", "/nonexistent"}, kExitLocalFile, "/nonexistent"},
        ExitCase{"NoRecording", {"replay", "/nonexistent.jsonl"}, kExitLocalFile, "/nonexistent.jsonl"},
        ExitCase{"NoMachine", {"describe", "machine", "none"}, StatusExit(grpc::NOT_FOUND), "reason: "},
        ExitCase{"NoPreset", {"create", "machine", "a", "--preset", "sparc-1G"}, StatusExit(grpc::NOT_FOUND), "sparc-1G"},
        ExitCase{"BadMachineId", {"create", "machine", "A", "--preset", "686-1G"}, StatusExit(grpc::INVALID_ARGUMENT), "machine_id"}),
    [](const auto& tested) { return tested.param.name; });

// Who takes how much for the same objects: SLOB wastes least of what it hands out, and nothing stays behind.
TEST_F(CommandLineTest, ComparesTheSlabAllocators) {
  const CommandRun run = Mmlab({"compare", "slab-allocators", "--objects", "2000"});
  ASSERT_EQ(run.exit_code, kExitDone) << run.err;
  const std::vector<std::string> lines = absl::StrSplit(run.out, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 10u);
  EXPECT_THAT(lines[0], AllOf(HasSubstr("OBJECTS"), HasSubstr("INTERNAL"), HasSubstr("EXTERNAL")));
  for (size_t i = 1; i < lines.size(); ++i) {
    EXPECT_THAT(lines[i], HasSubstr(std::vector<const char*>{"slub", "slab", "slob"}[(i - 1) % 3]));
    EXPECT_THAT(lines[i], HasSubstr(std::vector<const char*>{"2000", "500", "1500"}[(i - 1) / 3]));
  }
  const CommandRun json = Mmlab({"compare", "slab-allocators", "--objects", "2000", "-o", "json"});
  EXPECT_THAT(json.out, AllOf(HasSubstr("\"internal_fragmentation\""), HasSubstr("\"pages\"")));
  EXPECT_EQ(Mmlab({"compare", "slab-allocators", "--objects", "2000", "-o", "json"}).out, json.out);
  EXPECT_EQ(Mmlab({"compare", "slab-allocators", "--objects", "0"}).exit_code, kExitUsage);
  EXPECT_EQ(Mmlab({"get", "machines", "-o", "name"}).out, "");
}

TEST_F(CommandLineTest, ShowsCachesAndTheirObjects) {
  ASSERT_EQ(Mmlab({"create", "machine", "lab", "--preset", "686-64M"}).exit_code, kExitDone);
  ASSERT_EQ(Mmlab({"kmem-cache-create", "lab", "--cache", "mine", "--object-size", "100", "--constructor"}).exit_code, kExitDone);
  EXPECT_THAT(Mmlab({"get", "caches", "lab"}).out, AllOf(HasSubstr("NAME"), HasSubstr("\nmine "), HasSubstr("\ntask_struct ")));
  std::string address = Mmlab({"kmem-cache-alloc", "lab", "--cache", "mine"}).out;
  address.pop_back();
  EXPECT_THAT(Mmlab({"describe", "cache", "lab", "mine"}).out, HasSubstr("allocated         1\n"));
  const CommandRun object = Mmlab({"describe", "object", "lab", address});
  EXPECT_THAT(object.out, AllOf(HasSubstr("cache  mine\n"), HasSubstr(" allocated\n"), HasSubstr("#"), HasSubstr(".")));
  ASSERT_EQ(Mmlab({"kmem-cache-free", "lab", "--cache", "mine", "--address", address}).exit_code, kExitDone);
  EXPECT_THAT(Mmlab({"kmem-cache-free", "lab", "--cache", "mine", "--address", address}).out,
              AllOf(HasSubstr("EINVAL"), HasSubstr("BUG mine (Not tainted): Object already free")));
  EXPECT_THAT(Mmlab({"write-slab-memory", "lab", "--address", address, "--data", "late"}).out,
              AllOf(HasSubstr("EINVAL"), HasSubstr("BUG mine (Not tainted): Poison overwritten")));
  EXPECT_THAT(Mmlab({"dmesg", "lab"}).out, AllOf(StartsWith("[    0.000000] Linux version"), HasSubstr("Poison overwritten")));
  EXPECT_EQ(Mmlab({"describe", "cache", "lab", "nobody's"}).exit_code, StatusExit(grpc::NOT_FOUND));
  EXPECT_THAT(Mmlab({"alloc-percpu", "lab", "--size", "100"}).out, MatchesRegex("0x[0-9a-f]+\n(.|\n)*"));
  EXPECT_THAT(Mmlab({"get", "percpu", "lab"}).out,
              AllOf(HasSubstr(" first chunk\n"), HasSubstr("unit 135168 bytes a CPU, 33 pages in all")));
}

TEST_F(CommandLineTest, AMachineHasTheSlabAllocatorItWasMadeWith) {
  ASSERT_EQ(Mmlab({"create", "machine", "tiny", "--preset", "686-64M", "--slab-allocator", "slob"}).exit_code, kExitDone);
  EXPECT_EQ(Mmlab({"proc", "tiny", "slabinfo"}).exit_code, StatusExit(grpc::NOT_FOUND));
  ASSERT_EQ(Mmlab({"create", "machine", "classic", "--preset", "686-64M", "--slab-allocator", "slab"}).exit_code, kExitDone);
  EXPECT_THAT(Mmlab({"proc", "classic", "slabinfo"}).out, HasSubstr(" 124    1 : tunables  120   60    0 : slabdata "));
  const CommandRun refused = Mmlab({"create", "machine", "odd", "--preset", "686-64M", "--slab-allocator", "slqb"});
  EXPECT_EQ(refused.exit_code, kExitUsage);
  EXPECT_THAT(refused.err, HasSubstr("slub, slab or slob, not slqb"));
}

TEST_F(CommandLineTest, HelpAndVersionEndWell) {
  EXPECT_EQ(Mmlab({"--version"}).out, absl::StrCat(Version(), "\n"));
  const CommandRun help = Mmlab({"--help"});
  EXPECT_EQ(help.exit_code, kExitDone);
  EXPECT_THAT(help.out, AllOf(HasSubstr("Examples:"), HasSubstr("MMLAB_SERVER"), HasSubstr("Exit codes:")));
  EXPECT_THAT(Mmlab({"mmap", "--help"}).out, AllOf(StartsWith("mmap(2)\n"), HasSubstr("--length"), HasSubstr("rwx letters")));
  EXPECT_THAT(Mmlab({"swapon", "--help"}).out, MatchesRegex("(.|\n)*--path TEXT +[A-Z](.|\n)*"));
}

TEST(InProcessTest, NeedsNoServer) {
  setenv("MMLAB_SERVER", "127.0.0.1:1", 1);
  const CommandRun presets = Mmlab({"--in-process", "get", "presets", "-o", "name"});
  unsetenv("MMLAB_SERVER");
  EXPECT_EQ(presets.exit_code, kExitDone) << presets.err;
  EXPECT_THAT(presets.out, HasSubstr("arm64-1G\n"));
}

// Several recordings at a time, one of them damaged: the others are performed, and reported in their order.
TEST(InProcessTest, ReplaysSeveralAtATime) {
  const std::string folder = testing::TempDir() + "mmlab-replays";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const std::string data = "tests/conformance/data/traces/686/";
  for (const auto& entry : std::filesystem::directory_iterator(data)) {
    const std::string name = entry.path().filename();
    if (absl::StrContains(name, "s01-") || absl::StrContains(name, "s13-")) {
      std::filesystem::copy(entry.path(), folder + "/" + name);
    }
  }
  std::ofstream(folder + "/s00-damaged.jsonl") << "{\"kind\":\"header\",\"format\":\"lab-trace\"}\n{\"kind\":\"initial\",\"step\":0}\n";
  const CommandRun run = Mmlab({"--in-process", "replay", folder, "--jobs", "2", "--answers", folder + "/answers"});
  EXPECT_EQ(run.exit_code, StatusExit(grpc::INVALID_ARGUMENT));
  EXPECT_THAT(run.err, HasSubstr("s00-damaged.jsonl: not replayed: not as the format says"));
  EXPECT_LT(run.out.find("/s01-"), run.out.find("/s13-"));
  EXPECT_THAT(run.out, AllOf(HasSubstr(" of 3 recordings exact, 1 not replayed\n"), Not(HasSubstr(" 0 of 3 recordings"))));
  int answers = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder + "/answers")) ++answers;
  EXPECT_EQ(answers, 2);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace mmlab
