// MemoryService: structures of memory management, translation and the bytes of memory, over the wire.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/service/test_server.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;

class MemoryServiceTest : public testing::Test {
 protected:
  MemoryServiceTest() : machine_(server_.CreateMachine("m", "686-1G")), pid_(server_.Exec(machine_)) {}

  std::string Process() const { return absl::StrCat(machine_, "/processes/", pid_); }
  uint64_t Mmap(uint64_t pages, uint32_t prot, uint64_t address = 0) {
    v1::MmapRequest request;
    request.set_machine(machine_);
    request.set_pid(pid_);
    request.set_address(address);
    request.set_length_bytes(pages * kPage);
    request.set_prot(prot);
    request.set_flags(0x22);
    request.set_fd(-1);
    v1::MmapResponse response;
    EXPECT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::Mmap, request, &response).ok());
    return response.outcome().value();
  }
  void WriteBytes(uint64_t address, const std::string& data) {
    v1::AccessMemoryRequest request;
    request.set_machine(machine_);
    request.set_pid(pid_);
    request.set_kind(v1::ACCESS_KIND_WRITE_BYTES);
    request.set_address(address);
    request.set_data(data);
    v1::AccessMemoryResponse response;
    EXPECT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::AccessMemory, request, &response).ok());
  }
  v1::AddressSpace Mm() {
    v1::GetAddressSpaceRequest request;
    request.set_name(Process());
    v1::GetAddressSpaceResponse response;
    EXPECT_TRUE(Call(server_.memory, &v1::MemoryService::Stub::GetAddressSpace, request, &response).ok());
    return response.address_space();
  }
  std::vector<v1::VmAreaStruct> Vmas(int page_size) {
    v1::ListVmAreaStructsRequest request;
    request.set_parent(Process());
    request.set_page_size(page_size);
    std::vector<v1::VmAreaStruct> all;
    do {
      v1::ListVmAreaStructsResponse response;
      EXPECT_TRUE(Call(server_.memory, &v1::MemoryService::Stub::ListVmAreaStructs, request, &response).ok());
      EXPECT_LE(response.vm_areas_size(), page_size);
      all.insert(all.end(), response.vm_areas().begin(), response.vm_areas().end());
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return all;
  }
  v1::TranslateVirtualAddressResponse Translate(uint64_t address, v1::TranslationAccess access) {
    v1::TranslateVirtualAddressRequest request;
    request.set_machine(machine_);
    request.set_pid(pid_);
    request.set_address(address);
    request.set_access(access);
    v1::TranslateVirtualAddressResponse response;
    EXPECT_TRUE(Call(server_.memory, &v1::MemoryService::Stub::TranslateVirtualAddress, request, &response).ok());
    return response;
  }
  v1::ReadMemoryResponse Read(v1::MemorySpace space, uint64_t address, uint64_t length, int32_t pid = 0) {
    v1::ReadMemoryRequest request;
    request.set_machine(machine_);
    request.set_space(space);
    request.set_pid(pid);
    request.set_address(address);
    request.set_length_bytes(length);
    v1::ReadMemoryResponse response;
    EXPECT_TRUE(Call(server_.memory, &v1::MemoryService::Stub::ReadMemory, request, &response).ok());
    return response;
  }
  v1::Outcome Write(uint64_t address, const std::string& data) {
    v1::WritePhysicalMemoryRequest request;
    request.set_machine(machine_);
    request.set_address(address);
    request.set_data(data);
    request.set_explain(true);
    v1::WritePhysicalMemoryResponse response;
    EXPECT_TRUE(Call(server_.memory, &v1::MemoryService::Stub::WritePhysicalMemory, request, &response).ok());
    return response.outcome();
  }

  TestServer server_;
  const std::string machine_;
  const int32_t pid_;
};

TEST_F(MemoryServiceTest, TheAddressSpaceAgreesWithItsVmas) {
  const uint64_t address = Mmap(4, 3);
  WriteBytes(address, "x");
  const v1::AddressSpace mm = Mm();
  EXPECT_EQ(mm.name(), Process());
  EXPECT_EQ(mm.task_size(), 0xc0000000u);
  EXPECT_EQ(mm.pgd(), 0xc0000000u + mm.pgd_physical_address());
  EXPECT_EQ(mm.start_code(), 0x08048000u);
  EXPECT_EQ(mm.mm_users(), 1);
  EXPECT_EQ(mm.mm_count(), 1);
  EXPECT_EQ(mm.flags(), 0xcdu);
  EXPECT_EQ(mm.exe_file(), "/bin/small");
  EXPECT_EQ(mm.nr_pmds(), 0) << "the level is folded without PAE";
  EXPECT_EQ(mm.pgtables_bytes(), mm.nr_ptes() * static_cast<int64_t>(kPage));
  EXPECT_GT(mm.nr_ptes(), 0);
  EXPECT_GT(mm.rss_stat().anon_pages() + mm.rss_stat().pending_pages(), 0);
  ASSERT_GT(mm.saved_auxv_size(), 5);
  EXPECT_TRUE(std::any_of(mm.saved_auxv().begin(), mm.saved_auxv().end(),
                          [](const auto& entry) { return entry.type_name() == "AT_PHDR" && entry.value() != 0; }));
  const std::vector<v1::VmAreaStruct> vmas = Vmas(2);
  EXPECT_EQ(static_cast<int>(vmas.size()), mm.map_count());
  EXPECT_EQ(vmas.back().vm_end(), mm.highest_vm_end());
  uint64_t pages = 0;
  for (const v1::VmAreaStruct& vma : vmas) pages += (vma.vm_end() - vma.vm_start()) / kPage;
  EXPECT_EQ(static_cast<int64_t>(pages), mm.total_vm_pages());
}

TEST_F(MemoryServiceTest, VmasAreShownWithTheirProperties) {
  const uint64_t address = Mmap(4, 3);
  const auto at = [&](uint64_t start) {
    const std::vector<v1::VmAreaStruct> vmas = Vmas(100);
    return *std::find_if(vmas.begin(), vmas.end(), [&](const auto& vma) { return vma.vm_start() <= start && start < vma.vm_end(); });
  };
  EXPECT_EQ(at(address).anon_vma(), 0u);
  WriteBytes(address, "x");
  const v1::VmAreaStruct anonymous = at(address);
  EXPECT_NE(anonymous.anon_vma(), 0u) << "the first page brings it";
  EXPECT_EQ(anonymous.anon_vma_chain_size(), 1);
  EXPECT_EQ(anonymous.vm_ops(), "");
  EXPECT_EQ(anonymous.vm_flags() & 0xff, 0x73u | (anonymous.vm_flags() & 4)) << "READ, WRITE, MAYREAD, MAYWRITE, MAYEXEC";
  EXPECT_EQ(anonymous.vm_flag_names(0), "READ");
  EXPECT_EQ(anonymous.vm_page_prot_text(), "P US A");
  const v1::VmAreaStruct text = at(0x08048000);
  EXPECT_EQ(text.vm_file(), "/bin/small");
  EXPECT_NE(text.inode(), 0u);
  EXPECT_NE(text.vm_ops(), "");
  const v1::VmAreaStruct stack = at(Mm().start_stack());
  EXPECT_EQ(stack.guard_gap_bytes(), 1 << 20);
}

TEST_F(MemoryServiceTest, BothStoresHoldTheSameVmas) {
  for (uint64_t i = 0; i < 40; ++i) Mmap(1, i % 2 == 0 ? 1 : 3, 0x40000000 + i * kPage);
  const std::vector<v1::VmAreaStruct> vmas = Vmas(1000);
  for (const v1::VmaStoreKind kind : {v1::VMA_STORE_KIND_RBTREE, v1::VMA_STORE_KIND_MAPLE}) {
    std::vector<uint64_t> starts;
    int64_t nodes = 0;
    v1::ListVmaStoreNodesRequest request;
    request.set_parent(Process());
    request.set_kind(kind);
    request.set_page_size(7);
    v1::ListVmaStoreNodesResponse response;
    do {
      response.Clear();
      ASSERT_TRUE(Call(server_.memory, &v1::MemoryService::Stub::ListVmaStoreNodes, request, &response).ok());
      for (const v1::VmaStoreNode& node : response.nodes()) {
        EXPECT_EQ(node.number(), nodes++);
        EXPECT_LT(node.depth(), response.depth());
        if (node.has_rb()) starts.push_back(node.rb().vm_start());
        for (const v1::MapleSlot& slot : node.maple().slots()) {
          if (slot.has_vma()) starts.push_back(slot.vma());
        }
      }
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    EXPECT_EQ(nodes, response.node_count());
    EXPECT_EQ(response.vma_count(), static_cast<int64_t>(vmas.size()));
    EXPECT_EQ(response.node_bytes(), kind == v1::VMA_STORE_KIND_MAPLE ? nodes * 256 : 0);
    std::sort(starts.begin(), starts.end());
    ASSERT_EQ(starts.size(), vmas.size());
    for (size_t i = 0; i < starts.size(); ++i) EXPECT_EQ(starts[i], vmas[i].vm_start());
  }
}

TEST_F(MemoryServiceTest, AddressesAreTranslatedLevelByLevel) {
  const uint64_t address = Mmap(2, 1);
  v1::TranslateVirtualAddressResponse nothing = Translate(address, v1::TRANSLATION_ACCESS_READ);
  EXPECT_FALSE(nothing.mapped());
  EXPECT_EQ(nothing.fault().kind(), "translation");
  EXPECT_EQ(nothing.fault().x86_error_code(), 4u);
  const v1::TranslateVirtualAddressResponse text = Translate(0x08048010, v1::TRANSLATION_ACCESS_WRITE);
  EXPECT_EQ(text.region(), "user");
  EXPECT_EQ(text.base_register(), "CR3");
  EXPECT_EQ(text.base_value(), Mm().pgd_physical_address());
  if (text.mapped()) {
    ASSERT_EQ(text.steps_size(), 2);
    EXPECT_EQ(text.steps(0).level(), "pgd");
    EXPECT_EQ(text.steps(0).index(), 0x08048010u >> 22);
    EXPECT_EQ(text.steps(0).kind(), "table");
    EXPECT_EQ(text.steps(1).table_address(), text.steps(0).target_address());
    EXPECT_EQ(text.physical_address(), text.steps(1).target_address() + 0x10);
    EXPECT_EQ(text.fault().kind(), "permission");
    EXPECT_EQ(text.fault().level(), "pte");
    EXPECT_EQ(text.fault().x86_error_code(), 7u);
    EXPECT_EQ(text.steps(1).fields(0).name(), "P");
  }
  EXPECT_EQ(Translate(0xc0100000, v1::TRANSLATION_ACCESS_READ).region(), "lowmem");
  EXPECT_EQ(Translate(0xc0100000, v1::TRANSLATION_ACCESS_READ).physical_address(), 0x100000u);
}

TEST_F(MemoryServiceTest, BytesAreReadAndWritten) {
  const uint64_t address = Mmap(2, 3);
  WriteBytes(address, "hello");
  EXPECT_EQ(Read(v1::MEMORY_SPACE_VIRTUAL, address, 5, pid_).data(), "hello");
  const uint64_t physical = Translate(address, v1::TRANSLATION_ACCESS_READ).physical_address();
  EXPECT_EQ(Read(v1::MEMORY_SPACE_PHYSICAL, physical, 5).data(), "hello");
  const v1::Outcome written = Write(physical, "J");
  EXPECT_EQ(written.error_number(), 0);
  EXPECT_EQ(written.value(), 1u);
  ASSERT_GT(written.explanation().steps_size(), 0);
  EXPECT_EQ(written.explanation().steps(0).kind(), v1::STEP_KIND_PHYSICAL_ACCESS);
  EXPECT_EQ(Read(v1::MEMORY_SPACE_VIRTUAL, address, 5, pid_).data(), "Jello");
  const v1::ReadMemoryResponse rest = Read(v1::MEMORY_SPACE_VIRTUAL, address, 2 * kPage, pid_);
  EXPECT_EQ(rest.data().size(), kPage);
  EXPECT_EQ(rest.failed_at(), address + kPage);
  EXPECT_NE(rest.reason(), "");
  // Holes and page tables.
  EXPECT_NE(Read(v1::MEMORY_SPACE_PHYSICAL, uint64_t{1} << 35, 1).reason(), "");
  EXPECT_EQ(Write(uint64_t{1} << 35, "x").error_name(), "EFAULT");
  EXPECT_EQ(Write(Mm().pgd_physical_address(), "x").error_name(), "EPERM");
}

TEST_F(MemoryServiceTest, WrongRequestsAreRefused) {
  v1::GetAddressSpaceRequest get;
  v1::GetAddressSpaceResponse got;
  get.set_name(absl::StrCat(machine_, "/processes/999"));
  EXPECT_EQ(Call(server_.memory, &v1::MemoryService::Stub::GetAddressSpace, get, &got).error_code(), grpc::StatusCode::NOT_FOUND);
  v1::CreateProcessRequest create;
  create.set_machine(machine_);
  create.set_kernel_thread(true);
  create.set_comm("kthread");
  v1::CreateProcessResponse created;
  ASSERT_TRUE(Call(server_.processes, &v1::ProcessService::Stub::CreateProcess, create, &created).ok());
  get.set_name(absl::StrCat(machine_, "/processes/", created.outcome().value()));
  const grpc::Status none = Call(server_.memory, &v1::MemoryService::Stub::GetAddressSpace, get, &got);
  EXPECT_EQ(none.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(none).precondition, "NO_ADDRESS_SPACE");
  v1::ListVmaStoreNodesRequest nodes;
  v1::ListVmaStoreNodesResponse listed;
  nodes.set_parent(Process());
  EXPECT_EQ(DetailsOf(Call(server_.memory, &v1::MemoryService::Stub::ListVmaStoreNodes, nodes, &listed)).field, "kind");
  v1::TranslateVirtualAddressRequest translate;
  v1::TranslateVirtualAddressResponse translated;
  translate.set_machine(machine_);
  translate.set_address(uint64_t{1} << 32);
  EXPECT_EQ(Call(server_.memory, &v1::MemoryService::Stub::TranslateVirtualAddress, translate, &translated).error_code(),
            grpc::StatusCode::OUT_OF_RANGE);
  v1::ReadMemoryRequest read;
  v1::ReadMemoryResponse bytes;
  read.set_machine(machine_);
  EXPECT_EQ(DetailsOf(Call(server_.memory, &v1::MemoryService::Stub::ReadMemory, read, &bytes)).field, "space");
  read.set_space(v1::MEMORY_SPACE_PHYSICAL);
  read.set_length_bytes((1 << 20) + 1);
  EXPECT_EQ(Call(server_.memory, &v1::MemoryService::Stub::ReadMemory, read, &bytes).error_code(), grpc::StatusCode::OUT_OF_RANGE);
  v1::WritePhysicalMemoryRequest write;
  v1::WritePhysicalMemoryResponse wrote;
  write.set_machine(machine_);
  write.set_data(std::string((1 << 20) + 1, 'x'));
  EXPECT_EQ(Call(server_.memory, &v1::MemoryService::Stub::WritePhysicalMemory, write, &wrote).error_code(),
            grpc::StatusCode::OUT_OF_RANGE);
}

}  // namespace
}  // namespace mmlab
