#include "client/cli/operation_flags.h"

#include <gtest/gtest.h>

#include "client/cli/exit_code.h"
#include "client/cli/session.h"
#include "mmlab/v1/operation.pb.h"

namespace mmlab {
namespace {

// What a command line makes of the operation's request, as protobuf's short text; or "exit N".
std::string Typed(const std::string& operation, const std::map<std::string, std::string>& fixed, std::vector<std::string> arguments) {
  v1::Operation message;
  const google::protobuf::FieldDescriptor* member = message.GetDescriptor()->FindFieldByName(operation);
  OperationFlags flags(member->message_type());
  CLI::App command;
  flags.AddTo(&command, fixed);
  try {
    std::reverse(arguments.begin(), arguments.end());
    command.parse(arguments);
    google::protobuf::Message* request = message.GetReflection()->MutableMessage(&message, member);
    flags.Fill(request);
    return request->ShortDebugString();
  } catch (const CLI::ParseError&) {
    return "exit 2";
  } catch (const CommandFailure& failure) {
    return "exit " + std::to_string(failure.exit_code);
  }
}

struct FlagsCase {
  const char* name;
  const char* operation;
  std::vector<std::string> arguments;
  const char* request;
};

class OperationFlagsTest : public testing::TestWithParam<FlagsCase> {};

TEST_P(OperationFlagsTest, FillsTheRequest) { EXPECT_EQ(Typed(GetParam().operation, {}, GetParam().arguments), GetParam().request); }

INSTANTIATE_TEST_SUITE_P(
    Lines, OperationFlagsTest,
    testing::Values(
        FlagsCase{"Mmap",
                  "mmap",
                  {"lab1", "2", "--length", "64K", "--prot", "rw", "--flags", "private,anonymous"},
                  "pid: 2 length_bytes: 65536 prot: 3 flags: 34"},
        FlagsCase{"MmapNumbers",
                  "mmap",
                  {"lab1", "2", "--length", "0x1000", "--prot", "0x7", "--flags", "0x32", "--fd", "-1"},
                  "pid: 2 length_bytes: 4096 prot: 7 flags: 50 fd: -1"},
        FlagsCase{"Advice",
                  "madvise",
                  {"lab1", "2", "--address", "0x1000", "--length", "4K", "--advice", "MADV_PAGEOUT"},
                  "pid: 2 address: 4096 length_bytes: 4096 advice: 21"},
        FlagsCase{"OneAdviceOnly", "madvise", {"lab1", "2", "--address", "0x1000", "--length", "4K", "--advice", "free,cold"}, "exit 2"},
        FlagsCase{"MsyncNames",
                  "msync",
                  {"lab1", "2", "--address", "0x1000", "--length", "4K", "--flags", "sync,invalidate"},
                  "pid: 2 address: 4096 length_bytes: 4096 flags: 6"},
        FlagsCase{"OpenNames", "open", {"lab1", "2", "--path", "/d", "--flags", "rdwr"}, "pid: 2 path: \"/d\" flags: 2"},
        FlagsCase{"NoProtection",
                  "mprotect",
                  {"lab1", "2", "--address", "0x1000", "--length", "4096", "--prot", "---"},
                  "pid: 2 address: 4096 length_bytes: 4096"},
        FlagsCase{"AddressOfTheKernel",
                  "munmap",
                  {"lab1", "2", "--address", "0xffff800000000000", "--length", "1"},
                  "pid: 2 address: 18446603336221196288 length_bytes: 1"},
        FlagsCase{"EnumByShortName",
                  "alloc_pages",
                  {"lab1", "--gfp", "highuser-movable", "--order", "3", "--zero"},
                  "gfp: GFP_CLASS_HIGHUSER_MOVABLE order: 3 zero: true"},
        FlagsCase{"NegativeAdvice", "madvise", {"lab1", "2", "--advice", "-1"}, "pid: 2 advice: -1"},
        FlagsCase{"MachineMissing", "mmap", {}, "exit 2"}, FlagsCase{"UnknownFlag", "mmap", {"lab1", "2", "--size", "4096"}, "exit 2"},
        FlagsCase{"NoNumber", "mmap", {"lab1", "2", "--length", "much"}, "exit 2"},
        FlagsCase{"PidTooLarge", "exit", {"lab1", "4294967296"}, "exit 2"},
        FlagsCase{"UnknownMapFlag", "mmap", {"lab1", "2", "--flags", "private,magic"}, "exit 2"},
        FlagsCase{"UnknownEnum", "alloc_pages", {"lab1", "--gfp", "UNSPECIFIC"}, "exit 2"},
        FlagsCase{"MapFlagsTooLarge", "mmap", {"lab1", "2", "--flags", "0x100000000"}, "exit 2"}),
    [](const auto& tested) { return tested.param.name; });

TEST(OperationFlagsOfVerbTest, WhatTheVerbSaysIsNotAsked) {
  EXPECT_EQ(Typed("access_memory", {{"kind", "STORE"}}, {"lab1", "2", "--address", "0x1000", "--length", "1", "--value", "7"}),
            "pid: 2 kind: ACCESS_KIND_STORE address: 4096 length_bytes: 1 value: 7");
  EXPECT_EQ(Typed("access_memory", {{"kind", "STORE"}}, {"lab1", "2", "--kind", "LOAD"}), "exit 2");
}

// A field that no flag can carry would make its verb unusable.
TEST(OperationFlagsOfVerbTest, EveryOperationCanBeAVerb) {
  const google::protobuf::Descriptor* operation = v1::Operation::descriptor();
  for (int i = 0; i < operation->field_count(); ++i) {
    SCOPED_TRACE(operation->field(i)->name());
    OperationFlags flags(operation->field(i)->message_type());
    CLI::App command;
    flags.AddTo(&command, {});
    EXPECT_FALSE(command.help().empty());
    for (const CLI::Option* option : command.get_options()) EXPECT_FALSE(option->get_description().empty()) << option->get_name();
  }
}

}  // namespace
}  // namespace mmlab
