#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/host/host.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

TEST(MachineServiceTest, ShowsWhatItMade) {
  TestServer server;
  v1::CreateMachineRequest request;
  request.set_machine_id("m");
  request.mutable_spec()->set_preset("686-pae-4G");
  (*request.mutable_labels())["course"] = "os";
  v1::CreateMachineResponse response;
  ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::CreateMachine, request, &response).ok());
  const v1::Machine& machine = response.machine();
  EXPECT_EQ(machine.name(), "machines/m");
  EXPECT_EQ(machine.state(), v1::Machine::STATE_RUNNING);
  EXPECT_EQ(machine.spec().layout(), v1::LAYOUT_X86_32_PAE);
  EXPECT_GT(machine.spec().firmware_ranges_size(), 0);
  EXPECT_EQ(machine.labels().at("course"), "os");
  EXPECT_GT(machine.create_time().seconds(), 1700000000);
  EXPECT_GT(machine.memory_total_bytes(), int64_t{3} << 30);
  EXPECT_GT(machine.memory_free_bytes(), int64_t{3} << 30);
  EXPECT_EQ(machine.now_nanoseconds() / 1'000'000'000, 1700000000);
  ASSERT_EQ(machine.zones_size(), 3);
  EXPECT_EQ(machine.zones(0).name(), "DMA");
  EXPECT_EQ(machine.zones(2).name(), "HighMem");
  EXPECT_EQ(machine.zones(2).free_blocks_size(), 11);
  EXPECT_EQ(machine.state_hash(), 0u);  // Only from GetMachine.
  EXPECT_NE(server.GetMachine("machines/m").state_hash(), 0u);
}

TEST(MachineServiceTest, ValidateOnlyMakesNothing) {
  TestServer server;
  v1::CreateMachineRequest request;
  request.set_machine_id("m");
  request.mutable_spec()->set_preset(kPreset);
  request.set_validate_only(true);
  v1::CreateMachineResponse response;
  ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::CreateMachine, request, &response).ok());
  EXPECT_EQ(response.machine().name(), "machines/m");
  EXPECT_EQ(server.server().host().machine_count(), 0u);
}

TEST(MachineServiceTest, MakesMachinesOfAnySize) {
  TestServer server;
  v1::CreateMachineRequest request;
  request.set_machine_id("m");
  request.mutable_spec()->set_layout(v1::LAYOUT_ARM64);
  request.mutable_spec()->set_ram_bytes(int64_t{3} << 30);
  v1::CreateMachineResponse response;
  const grpc::Status status = Call(server.machines, &v1::MachineService::Stub::CreateMachine, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_NEAR(static_cast<double>(response.machine().memory_total_bytes()), static_cast<double>(int64_t{3} << 30), 200e6);
}

TEST(MachineServiceTest, ListsInPagesEveryMachineOnce) {
  TestServer server;
  for (int i = 0; i < 25; ++i) server.CreateMachine(absl::StrFormat("m%02d", i));
  std::vector<std::string> names;
  v1::ListMachinesRequest request;
  request.set_page_size(10);
  int pages = 0;
  do {
    v1::ListMachinesResponse response;
    ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::ListMachines, request, &response).ok());
    for (const v1::Machine& machine : response.machines()) names.push_back(machine.name());
    request.set_page_token(response.next_page_token());
    ++pages;
    if (pages == 1) server.CreateMachine("a");  // Behind us: not shown any more, and nothing else is missed.
  } while (!request.page_token().empty());
  EXPECT_EQ(pages, 3);
  ASSERT_EQ(names.size(), 25u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), 25u);
}

TEST(MachineServiceTest, AFullPageIsTheLastWhenNothingFollows) {
  TestServer server;
  for (int i = 0; i < 3; ++i) server.CreateMachine(absl::StrCat("m", i));
  v1::ListMachinesRequest request;
  request.set_page_size(3);
  v1::ListMachinesResponse response;
  ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::ListMachines, request, &response).ok());
  EXPECT_EQ(response.machines_size(), 3);
  EXPECT_EQ(response.next_page_token(), "");
}

TEST(MachineServiceTest, ListsPresets) {
  TestServer server;
  v1::ListPresetsRequest request;
  request.set_page_size(4);
  std::set<std::string> names;
  do {
    v1::ListPresetsResponse response;
    ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::ListPresets, request, &response).ok());
    for (const v1::Preset& preset : response.presets()) names.insert(preset.name());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names.size(), 15u);
  EXPECT_TRUE(names.contains("arm64-1G"));
}

TEST(MachineServiceTest, BootsAnewFromAnotherDescription) {
  TestServer server;
  server.CreateMachine("m", "686-1G");
  server.Exec("machines/m");
  v1::BootMachineRequest request;
  request.set_name("machines/m");
  request.mutable_spec()->set_preset("arm64-1G-smp4");
  v1::BootMachineResponse response;
  ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::BootMachine, request, &response).ok());
  EXPECT_EQ(response.machine().spec().layout(), v1::LAYOUT_ARM64);
  EXPECT_EQ(response.machine().operations_applied(), 0);
  v1::AllocPagesRequest alloc;  // It has its new CPUs.
  alloc.set_machine("machines/m");
  alloc.set_cpu(3);
  v1::AllocPagesResponse allocated;
  EXPECT_TRUE(Call(server.pages, &v1::PageService::Stub::AllocPages, alloc, &allocated).ok());
  request.clear_spec();  // As before.
  ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::BootMachine, request, &response).ok());
  EXPECT_EQ(response.machine().spec().preset(), "arm64-1G-smp4");
}

TEST(MachineServiceTest, WritesSysctlsAndLetsTimeGoOn) {
  TestServer server;
  server.CreateMachine("m");
  v1::WriteSysctlRequest sysctl;
  sysctl.set_machine("machines/m");
  sysctl.set_sysctl("vm/overcommit_memory");
  sysctl.set_value("2");
  v1::WriteSysctlResponse written;
  ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::WriteSysctl, sysctl, &written).ok());
  EXPECT_EQ(written.outcome().error_name(), "");
  sysctl.set_value("many");
  ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::WriteSysctl, sysctl, &written).ok());
  EXPECT_EQ(written.outcome().error_name(), "EINVAL");
  v1::AdvanceTimeRequest time;
  time.set_machine("machines/m");
  time.set_nanoseconds(5);
  v1::AdvanceTimeResponse advanced;
  ASSERT_TRUE(Call(server.machines, &v1::MachineService::Stub::AdvanceTime, time, &advanced).ok());
  EXPECT_EQ(advanced.outcome().value(), 1700000000000000005u);
}

}  // namespace
}  // namespace mmlab
