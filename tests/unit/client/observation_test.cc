#include "client/replay/observation.h"

#include <gtest/gtest.h>

namespace mmlab {
namespace {

struct BackingCase {
  const char* name;
  const char* maps;
  const char* recorded;
};

class BackingNameTest : public testing::TestWithParam<BackingCase> {};

TEST_P(BackingNameTest, IsTheRecordingsWord) { EXPECT_EQ(BackingName(GetParam().maps), GetParam().recorded); }

INSTANTIATE_TEST_SUITE_P(Columns, BackingNameTest,
                         testing::Values(BackingCase{"Anonymous", "", "anon"}, BackingCase{"NamedAnonymous", "[anon:lab]", "anon"},
                                         BackingCase{"Heap", "[heap]", "heap"}, BackingCase{"Stack", "[stack]", "stack"},
                                         BackingCase{"Vdso", "[vdso]", "vdso"}, BackingCase{"Program", "/subject", "subject"},
                                         BackingCase{"File", "/file3", "file3"}, BackingCase{"DevZero", "/dev/zero", "file7"},
                                         BackingCase{"SharedAnonymous", "/dev/zero (deleted)", "shared_anon"},
                                         BackingCase{"SysV", "/SYSV00000000 (deleted)", "sysv_shm"},
                                         BackingCase{"Memfd", "/memfd:lab (deleted)", "memfd"}),
                         [](const auto& tested) { return tested.param.name; });

v1::Process SmallProcess() {
  v1::Process process;
  process.set_minor_faults(27);
  process.set_oom_score(666);
  process.mutable_status()->set_vm_size_bytes(8192);
  process.mutable_resident()->set_anon_bytes(4096);
  v1::VmArea& area = *process.add_vm_areas();
  area.set_start_address(0x1000);
  area.set_end_address(0x3000);
  area.set_permissions("rw-p");
  area.set_vm_flags("rd wr");
  area.mutable_smaps()->set_rss_bytes(4096);
  return process;
}

TEST(ProcessObserverTest, TellsEverythingAtTheStart) {
  ProcessObserver observer;
  const auto initial = observer.Initial(SmallProcess());
  EXPECT_EQ(initial["minflt"], 27);
  EXPECT_FALSE(initial.contains("minflt_delta"));
  EXPECT_EQ(initial["status"]["vm_size"], 8192);
  EXPECT_EQ(initial["vmas"].dump(), R"([["0x1000","0x3000","rw-p",0,"anon"]])");
  EXPECT_EQ(initial["smaps"].dump(), R"({"0x1000":{"rss":4096,"vm_flags":"rd wr"}})");
  EXPECT_EQ(initial["rss"].dump(), R"({"anon":4096,"file":0,"shmem":0})");
}

TEST(ProcessObserverTest, TellsOnlyWhatChanged) {
  ProcessObserver observer;
  v1::Process process = SmallProcess();
  observer.Initial(process);
  EXPECT_TRUE(observer.Changes(process).is_null());
  process.set_minor_faults(29);
  EXPECT_EQ(observer.Changes(process).dump(), R"({"minflt_delta":2})");
  process.mutable_vm_areas(0)->mutable_smaps()->set_rss_bytes(8192);
  process.mutable_resident()->set_anon_bytes(8192);
  EXPECT_EQ(observer.Changes(process).dump(),
            R"({"smaps":{"0x1000":{"rss":8192,"vm_flags":"rd wr"}},"rss":{"anon":8192,"file":0,"shmem":0}})");
  EXPECT_TRUE(observer.Changes(process).is_null());
}

TEST(ProcessObserverTest, CountsVmasAloneAboveFourHundred) {
  ProcessObserver observer;
  v1::Process process = SmallProcess();
  observer.Initial(process);
  const v1::VmArea area = process.vm_areas(0);
  while (process.vm_areas_size() < kMostVmasListed) *process.add_vm_areas() = area;
  EXPECT_TRUE(observer.Changes(process).contains("vmas"));
  *process.add_vm_areas() = area;
  EXPECT_EQ(observer.Changes(process).dump(), R"({"vma_count":401})");
}

}  // namespace
}  // namespace mmlab
