// Names that a client chooses and that end up in /proc, metrics or discovery: what could break a reader of those is refused, and what is
// let through breaks none.
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "mmlab/v1/kernel_memory.grpc.pb.h"
#include "server/metrics/discovery.h"
#include "server/metrics/probe.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

struct HostileName {
  const char* what;
  std::string text;
};

// No field takes any of these.
const std::vector<HostileName>& RefusedEverywhere() {
  static const auto* const names = new std::vector<HostileName>{
      {"newline", "new\nline"},  {"carriage return", "a\rb"},         {"tab", "a\tb"},  {"NUL", std::string("a\0b", 3)},
      {"escape", "\x1b[31mred"}, {"64 KiB", std::string(65536, 'a')}, {"DEL", "a\x7f"}, {"not UTF-8", "\xff\xfe"},
      {"cut UTF-8", "\xe2\x82"},
  };
  return *names;
}

struct Field {
  const char* name;
  std::vector<std::string> taken;  // Odd, but harmless.
  std::function<grpc::Status(TestServer&, const std::string&)> use;
};

grpc::Status Create(TestServer& server, const v1::CreateMachineRequest& request) {
  v1::CreateMachineResponse response;
  return Call(server.machines, &v1::MachineService::Stub::CreateMachine, request, &response);
}

v1::CreateMachineRequest NewMachine(const std::string& id) {
  v1::CreateMachineRequest request;
  request.set_machine_id(id);
  request.mutable_spec()->set_preset(kPreset);
  return request;
}

const std::vector<Field>& Fields() {
  static const auto* const fields = new std::vector<Field>{
      {"machine_id", {}, [](TestServer& server, const std::string& text) { return Create(server, NewMachine(text)); }},
      {"hostname",
       {"a \"b\\ \xc2\x85"},
       [](TestServer& server, const std::string& text) {
         v1::CreateMachineRequest request = NewMachine("hostname");
         request.mutable_spec()->set_hostname(text);
         return Create(server, request);
       }},
      {"labels, the key",
       {},
       [](TestServer& server, const std::string& text) {
         v1::CreateMachineRequest request = NewMachine("key");
         (*request.mutable_labels())[text] = "value";
         return Create(server, request);
       }},
      {"labels, a value",
       {"a \"quoted\" \\ value"},
       [](TestServer& server, const std::string& text) {
         v1::CreateMachineRequest request = NewMachine("value");
         (*request.mutable_labels())["key"] = text;
         return Create(server, request);
       }},
      {"comm",
       {"a \"b\\", "{x=\"1\"} 2"},
       [](TestServer& server, const std::string& text) {
         v1::CreateProcessRequest request;
         request.set_machine("machines/m");
         request.set_comm(text);
         v1::CreateProcessResponse response;
         return Call(server.processes, &v1::ProcessService::Stub::CreateProcess, request, &response);
       }},
      {"cache",
       {"a\"b\\", "{x=\"1\"}"},
       [](TestServer& server, const std::string& text) {
         v1::KmemCacheCreateRequest request;
         request.set_machine("machines/m");
         request.set_cache(text);
         request.set_object_size_bytes(64);
         request.set_constructor(true);  // Not merged with another cache, under whose name it would be.
         v1::KmemCacheCreateResponse response;
         const auto slabs = v1::SlabService::NewStub(server.server().InProcessChannel());
         return Call(slabs, &v1::SlabService::Stub::KmemCacheCreate, request, &response);
       }},
  };
  return *fields;
}

// Whether every line is a comment or a sample whose labels are well quoted.
void ExpectWellFormed(const std::string& exposition) {
  for (const absl::string_view line : absl::StrSplit(exposition, '\n', absl::SkipEmpty())) {
    if (line[0] == '#') continue;
    size_t i = 0;
    bool quoted = false;
    for (; i < line.size() && (quoted || line[i] != ' '); ++i) {
      if (quoted && line[i] == '\\') {
        ++i;
      } else if (line[i] == '"') {
        quoted = !quoted;
      }
    }
    double value = 0;
    EXPECT_TRUE(!quoted && i < line.size() && absl::SimpleAtod(line.substr(i + 1), &value)) << line;
  }
}

TEST(HostileNames, AreRefusedAndBreakNoReader) {
  TestServer server;
  ASSERT_EQ(server.CreateMachine("m"), "machines/m");
  for (const Field& field : Fields()) {
    for (const HostileName& name : RefusedEverywhere()) {
      const grpc::Status status = field.use(server, name.text);
      EXPECT_FALSE(status.ok()) << field.name << ": " << name.what;
    }
    for (const std::string& text : field.taken) {
      const grpc::Status status = field.use(server, text);
      EXPECT_TRUE(status.ok()) << field.name << ": " << text << ": " << status.error_message();
    }
  }
  HttpRequest request;
  request.query.emplace("target", "m");
  request.query.emplace("collect", "default,slabinfo,process");
  request.headers.emplace("host", "lab:9464");
  const HttpResponse page = AnswerProbe(server.server().host(), request);
  EXPECT_THAT(page.body, testing::HasSubstr(R"(groupname="a \"b\\")"));
  EXPECT_THAT(page.body, testing::HasSubstr(R"(slab="a\"b\\")"));
  ExpectWellFormed(page.body);
  EXPECT_THAT(AnswerDiscovery(server.server().host(), request, "").body, testing::HasSubstr(R"("a \"quoted\" \\ value")"));
}

}  // namespace
}  // namespace mmlab
