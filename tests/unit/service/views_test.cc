// What is read back of processes, frames and /proc.
#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

class ViewsTest : public testing::Test {
 protected:
  ViewsTest() : machine_(server_.CreateMachine("m", "686-1G")), pid_(server_.Exec(machine_)) {}

  std::string Process() const { return absl::StrCat(machine_, "/processes/", pid_); }
  v1::Process Get(v1::ProcessView view) {
    v1::GetProcessRequest request;
    request.set_name(Process());
    request.set_view(view);
    v1::GetProcessResponse response;
    EXPECT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::GetProcess, request, &response).ok());
    return response.process();
  }
  v1::Outcome Access(v1::AccessKind kind, uint64_t address, uint64_t length, const std::string& data = "", bool explain = false) {
    v1::AccessMemoryRequest request;
    request.set_machine(machine_);
    request.set_pid(pid_);
    request.set_kind(kind);
    request.set_address(address);
    request.set_length_bytes(length);
    request.set_data(data);
    request.set_explain(explain);
    v1::AccessMemoryResponse response;
    EXPECT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::AccessMemory, request, &response).ok());
    return response.outcome();
  }
  std::string Proc(const std::string& path) {
    v1::ReadProcFileRequest request;
    request.set_machine(machine_);
    request.set_path(path);
    v1::ReadProcFileResponse response;
    const grpc::Status status = Call(server_.proc, &v1::ProcService::Stub::ReadProcFile, request, &response);
    EXPECT_TRUE(status.ok()) << path << ": " << status.error_message();
    return response.content();
  }

  TestServer server_;
  const std::string machine_;
  const int32_t pid_;
};

TEST_F(ViewsTest, AProcessIsShownAsDeepAsAsked) {
  const v1::Process basic = Get(v1::PROCESS_VIEW_BASIC);
  EXPECT_EQ(basic.name(), Process());
  EXPECT_EQ(basic.pid(), pid_);
  EXPECT_EQ(basic.comm(), "small");
  EXPECT_FALSE(basic.kernel_thread());
  EXPECT_GT(basic.status().vm_size_bytes(), 0);
  EXPECT_EQ(basic.vm_areas_size(), 0);
  const v1::Process vmas = Get(v1::PROCESS_VIEW_VMAS);
  ASSERT_GE(vmas.vm_areas_size(), 3);
  EXPECT_EQ(vmas.vm_areas(0).start_address(), 0x08048000u);
  EXPECT_EQ(vmas.vm_areas(0).permissions(), "r-xp");
  EXPECT_EQ(vmas.vm_areas(0).backing(), "/bin/small");
  EXPECT_FALSE(vmas.vm_areas(0).has_smaps());
  const v1::Process full = Get(v1::PROCESS_VIEW_FULL);
  EXPECT_TRUE(full.vm_areas(0).has_smaps());
  int64_t rss = 0;
  for (const v1::VmArea& area : full.vm_areas()) rss += area.smaps().rss_bytes();
  EXPECT_EQ(rss, full.resident().anon_bytes() + full.resident().file_bytes() + full.resident().shmem_bytes());
}

TEST_F(ViewsTest, ProcessesAreListedByPidInPages) {
  for (int i = 0; i < 5; ++i) {
    v1::ForkRequest request;
    request.set_machine(machine_);
    request.set_pid(pid_);
    v1::ForkResponse response;
    ASSERT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::Fork, request, &response).ok());
  }
  v1::ListProcessesRequest request;
  request.set_parent(machine_);
  request.set_page_size(2);
  std::vector<int32_t> pids;
  do {
    v1::ListProcessesResponse response;
    ASSERT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::ListProcesses, request, &response).ok());
    EXPECT_LE(response.processes_size(), 2);
    for (const v1::Process& process : response.processes()) pids.push_back(process.pid());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_TRUE(std::is_sorted(pids.begin(), pids.end()));
  EXPECT_EQ(static_cast<int32_t>(pids.size()), server_.GetMachine(machine_).process_count());
}

TEST_F(ViewsTest, BytesGoRoundTripThroughMemory) {
  const std::string text = "hello, simulated world";
  EXPECT_EQ(Access(v1::ACCESS_KIND_WRITE_BYTES, 0x0804a000, 0, text).access().done(), static_cast<int64_t>(text.size()));
  EXPECT_EQ(Access(v1::ACCESS_KIND_READ_BYTES, 0x0804a000, text.size()).data(), text);
  const v1::Outcome load = Access(v1::ACCESS_KIND_LOAD, 0x0804a000, 4);
  EXPECT_EQ(load.access().value(), 0x6c6c6568u);
  const v1::Outcome bad = Access(v1::ACCESS_KIND_LOAD, 0x10, 4);
  EXPECT_EQ(bad.signal().name(), "SIGSEGV");
  EXPECT_EQ(bad.signal().code_name(), "SEGV_MAPERR");
  EXPECT_EQ(bad.signal().address(), 0x10u);
}

TEST_F(ViewsTest, ExplainsWhenAsked) {
  const v1::Outcome outcome = Access(v1::ACCESS_KIND_STORE, 0x0804b000, 4, "", true);
  EXPECT_GT(outcome.explanation().steps_size(), 2);
  EXPECT_FALSE(outcome.explanation().text().empty());
  EXPECT_FALSE(Access(v1::ACCESS_KIND_STORE, 0x0804b000, 4).has_explanation());
}

TEST_F(ViewsTest, VmAreasAreListedInPages) {
  v1::ListVmAreasRequest request;
  request.set_parent(Process());
  request.set_page_size(1);
  request.set_with_smaps(true);
  std::vector<v1::VmArea> areas;
  do {
    v1::ListVmAreasResponse response;
    ASSERT_TRUE(Call(server_.proc, &v1::ProcService::Stub::ListVmAreas, request, &response).ok());
    ASSERT_EQ(response.vm_areas_size(), 1);
    areas.push_back(response.vm_areas(0));
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  const v1::Process full = Get(v1::PROCESS_VIEW_FULL);
  ASSERT_EQ(static_cast<int>(areas.size()), full.vm_areas_size());
  for (int i = 0; i < full.vm_areas_size(); ++i) EXPECT_EQ(areas[i].SerializeAsString(), full.vm_areas(i).SerializeAsString());
}

TEST_F(ViewsTest, EveryListedProcFileCanBeRead) {
  for (const std::string& parent : {machine_, Process()}) {
    v1::ListProcFilesRequest request;
    request.set_parent(parent);
    request.set_page_size(7);
    int files = 0;
    do {
      v1::ListProcFilesResponse response;
      ASSERT_TRUE(Call(server_.proc, &v1::ProcService::Stub::ListProcFiles, request, &response).ok());
      for (const std::string& path : response.paths()) {
        Proc(path);
        ++files;
      }
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    EXPECT_GT(files, 3) << parent;
  }
}

TEST_F(ViewsTest, MeminfoIsTheSameAsTextAndAsFields) {
  v1::GetMeminfoRequest request;
  request.set_machine(machine_);
  v1::GetMeminfoResponse response;
  ASSERT_TRUE(Call(server_.proc, &v1::ProcService::Stub::GetMeminfo, request, &response).ok());
  const std::string text = Proc("meminfo");
  EXPECT_EQ(response.fields_size(), std::count(text.begin(), text.end(), '\n'));
  EXPECT_EQ(response.fields(0).name(), "MemTotal");
  EXPECT_EQ(response.fields(0).bytes(), server_.GetMachine(machine_).memory_total_bytes());
  EXPECT_TRUE(absl::StartsWith(text, "MemTotal:")) << text;
}

TEST_F(ViewsTest, FramesAreShown) {
  v1::AllocPagesRequest alloc;
  alloc.set_machine(machine_);
  alloc.set_order(2);
  v1::AllocPagesResponse allocated;
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::AllocPages, alloc, &allocated).ok());
  v1::ListFramesRequest request;
  request.set_parent(machine_);
  request.set_first_pfn(allocated.outcome().value());
  v1::ListFramesResponse response;
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::ListFrames, request, &response).ok());
  ASSERT_EQ(response.frames_size(), 1);
  EXPECT_EQ(response.frames(0).pfn(), allocated.outcome().value());
  EXPECT_EQ(response.frames(0).state(), "kernel");
  EXPECT_EQ(response.frames(0).zone(), "Normal");
  EXPECT_EQ(response.frames(0).order(), 2);
  EXPECT_EQ(response.frames(0).reference_count(), 1);
  EXPECT_NE(response.next_page_token(), "");
  request.set_page_size(1 << 20);
  response.Clear();
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::ListFrames, request, &response).ok());
  EXPECT_EQ(response.frames_size(), 4096);
}

TEST_F(ViewsTest, MovablePagesAreFoundAgainAfterCompaction) {
  for (uint64_t id = 1; id <= 300; ++id) {
    v1::AllocPagesRequest alloc;
    alloc.set_machine(machine_);
    alloc.set_movable_id(id);
    v1::AllocPagesResponse allocated;
    ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::AllocPages, alloc, &allocated).ok());
  }
  v1::CompactMemoryRequest compact;
  compact.set_machine(machine_);
  v1::CompactMemoryResponse compacted;
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::CompactMemory, compact, &compacted).ok());
  EXPECT_GT(compacted.outcome().value(), 0u);
  v1::ListMovablePagesRequest request;
  request.set_parent(machine_);
  request.set_page_size(200);
  v1::ListMovablePagesResponse response;
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::ListMovablePages, request, &response).ok());
  ASSERT_EQ(response.pages_size(), 200);
  request.set_page_token(response.next_page_token());
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::ListMovablePages, request, &response).ok());
  ASSERT_EQ(response.pages_size(), 100);
  EXPECT_EQ(response.next_page_token(), "");
  EXPECT_EQ(response.pages(99).movable_id(), 300u);
  v1::ListFramesRequest frames;
  frames.set_parent(machine_);
  frames.set_first_pfn(response.pages(99).pfn());
  v1::ListFramesResponse shown;
  ASSERT_TRUE(Call(server_.pages, &v1::PageService::Stub::ListFrames, frames, &shown).ok());
  EXPECT_EQ(shown.frames(0).mapping(), "movable_operations");
  EXPECT_EQ(shown.frames(0).index(), 300u);
}

TEST_F(ViewsTest, FilesOfFramesAreReadPartByPart) {
  v1::ReadProcFileRequest request;
  request.set_machine(machine_);
  request.set_path("kpageflags");
  request.set_offset_bytes(8 * 4096);
  request.set_length_bytes(80);
  v1::ReadProcFileResponse response;
  ASSERT_TRUE(Call(server_.proc, &v1::ProcService::Stub::ReadProcFile, request, &response).ok());
  EXPECT_EQ(response.content().size(), 80u);
  request.set_length_bytes(81);
  EXPECT_EQ(Call(server_.proc, &v1::ProcService::Stub::ReadProcFile, request, &response).error_code(), grpc::INVALID_ARGUMENT);
  request.set_length_bytes(int64_t{1} << 21);
  EXPECT_EQ(Call(server_.proc, &v1::ProcService::Stub::ReadProcFile, request, &response).error_code(), grpc::OUT_OF_RANGE);
  request.set_path("meminfo");
  request.set_length_bytes(8);
  EXPECT_EQ(Call(server_.proc, &v1::ProcService::Stub::ReadProcFile, request, &response).error_code(), grpc::INVALID_ARGUMENT);
}

TEST_F(ViewsTest, PhysicalMemoryShowsWhatAProcessWrote) {
  Access(v1::ACCESS_KIND_WRITE_BYTES, 0x0804a000, 0, "needle in a haystack");
  // The process's top page table, its table, the page: as the hardware walks.
  v1::SwitchToRequest request;
  request.set_machine(machine_);
  request.set_pid(pid_);
  v1::SwitchToResponse switched;
  ASSERT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::SwitchTo, request, &switched).ok());
  const auto read = [&](uint64_t address, int64_t length) {
    v1::ReadPhysicalRequest physical;
    physical.set_parent(machine_);
    physical.set_address(address);
    physical.set_length_bytes(length);
    v1::ReadPhysicalResponse bytes;
    EXPECT_TRUE(Call(server_.pages, &v1::PageService::Stub::ReadPhysical, physical, &bytes).ok());
    return bytes.data();
  };
  const auto entry = [&](uint64_t address) {
    const std::string bytes = read(address, 4);
    uint64_t value = 0;
    for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
    return value;
  };
  constexpr uint64_t kAddress = 0x0804a000;
  const uint64_t pde = entry(switched.outcome().value() + (kAddress >> 22) * 4);
  ASSERT_TRUE(pde & 1);
  const uint64_t pte = entry((pde & ~uint64_t{0xfff}) + (kAddress >> 12 & 0x3ff) * 4);
  ASSERT_TRUE(pte & 1);
  EXPECT_EQ(read(pte & ~uint64_t{0xfff}, 6), "needle");
}

}  // namespace
}  // namespace mmlab
