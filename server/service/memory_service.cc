#include "server/service/memory_service.h"

#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/machine/machine.h"
#include "server/machine/physical_access.h"
#include "server/machine/virtual_translation.h"
#include "server/process/address_space.h"
#include "server/process/mm_view.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/process/vma_store.h"
#include "server/procfs/page_frames.h"
#include "server/procfs/pagemap.h"
#include "server/service/handle_read.h"
#include "server/service/memory_view_converters.h"
#include "server/service/page_token.h"

namespace mmlab {
namespace {

constexpr uint64_t kMaxTransfer = uint64_t{1} << 20;

absl::Status CheckAddressSpace(const Process& process, absl::string_view name) {
  if (process.mm != nullptr) return absl::OkStatus();
  return WrongState("NO_ADDRESS_SPACE", name, "the process has no address space: a kernel thread, or not exec'ed yet");
}

// The process with an address space that a request names; 0 names none: null.
absl::StatusOr<const Process*> FindOptionalUser(const Machine& machine, int32_t pid) {
  if (pid == 0) return nullptr;
  const Process* process = machine.processes().Find(Pid(pid));
  if (process == nullptr) return ResourceNotFound("process", absl::StrCat(pid));
  MMLAB_RETURN_IF_ERROR(CheckAddressSpace(*process, absl::StrCat(pid)));
  return process;
}

// Where a page of a list starts.
absl::StatusOr<size_t> FirstOf(const std::string& list, const std::string& token) {
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(list, token));
  uint64_t first = 0;
  if (!after.empty() && !absl::SimpleAtoi(after, &first)) return InvalidField("page_token", "must be of this list");
  return static_cast<size_t>(first);
}

absl::Status ListVmas(const Machine& machine, const AddressSpace& mm, const v1::ListVmAreaStructsRequest& request,
                      v1::ListVmAreaStructsResponse& response) {
  const std::string list = absl::StrCat("ListVmAreaStructs ", request.parent());
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  // A token is where the page before ended: VMAs may come and go between two pages.
  MMLAB_ASSIGN_OR_RETURN(const size_t from, FirstOf(list, request.page_token()));
  for (const VmArea* vma = mm.vmas.Find(VirtAddr(from)); vma != nullptr; vma = mm.vmas.Next(*vma)) {
    if (static_cast<size_t>(response.vm_areas_size()) == page_size) {
      response.set_next_page_token(MakePageToken(list, absl::StrCat(vma->start.raw())));
      break;
    }
    VmAreaStructToProto(machine, *vma, response.add_vm_areas());
  }
  return absl::OkStatus();
}

absl::Status ListNodes(const Machine& machine, const AddressSpace& mm, const v1::ListVmaStoreNodesRequest& request,
                       v1::ListVmaStoreNodesResponse& response) {
  const std::string list = absl::StrCat("ListVmaStoreNodes ", request.parent(), " ", request.kind());
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  MMLAB_ASSIGN_OR_RETURN(const size_t first, FirstOf(list, request.page_token()));
  const std::vector<StoredVma> vmas = StoredVmas(mm);
  if (request.kind() == v1::VMA_STORE_KIND_RBTREE) {
    RbStoreToProto(vmas, BuildRbStore(vmas), first, page_size, &response);
  } else {
    const MapleSizes sizes = MapleSizesOf(machine.layout().word_bytes);
    MapleStoreToProto(vmas, BuildMapleStore(vmas, sizes), sizes, first, page_size, &response);
  }
  const size_t end = first + static_cast<size_t>(response.nodes_size());
  if (end < static_cast<size_t>(response.node_count())) response.set_next_page_token(MakePageToken(list, absl::StrCat(end)));
  return absl::OkStatus();
}

void PagemapEntryToProto(const Machine& machine, const PagemapPage& page, v1::PagemapEntry* proto) {
  proto->set_address(page.address.raw());
  proto->set_value(page.entry);
  proto->set_present((page.entry & kPagemapPresent) != 0);
  proto->set_swapped((page.entry & kPagemapSwap) != 0);
  proto->set_file_or_shared((page.entry & kPagemapFile) != 0);
  proto->set_exclusive((page.entry & kPagemapExclusive) != 0);
  const uint64_t where = page.entry & kPagemapFrame;
  if (proto->present()) {
    proto->set_pfn(where);
    for (std::string& name : KpageFlagNames(KpageFlags(machine, Pfn(where)))) proto->add_page_flags(std::move(name));
  } else {
    proto->set_swap_area(static_cast<uint32_t>(where & kPagemapAreaMask));
    proto->set_swap_slot(where >> kPagemapSlotShift);
  }
}

absl::Status ListPages(const Machine& machine, const Process& process, const v1::ListPagemapRequest& request,
                       v1::ListPagemapResponse& response) {
  const std::string list = absl::StrCat("ListPagemap ", request.parent(), " ", request.end_address());
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  MMLAB_ASSIGN_OR_RETURN(const size_t from, FirstOf(list, request.page_token()));
  const uint64_t top = process.mm->task_size.raw();
  const uint64_t mask = machine.layout().page_size.mask();
  if (request.start_address() > top) return FieldOutOfRange("start_address", "must be an address of user space");
  if (request.end_address() > top) return FieldOutOfRange("end_address", "must be an address of user space, or its end");
  const uint64_t start = std::max<uint64_t>(request.start_address() & ~mask, from);
  const uint64_t end = request.end_address() == 0 ? top : (request.end_address() + mask) & ~mask;
  if (start >= end) return absl::OkStatus();
  // One more than wanted tells whether there is more, and where.
  const std::vector<PagemapPage> pages = PagemapPages(machine, process, VirtAddr(start), VirtAddr(end), page_size + 1);
  for (const PagemapPage& page : pages) {
    if (static_cast<size_t>(response.entries_size()) == page_size) {
      response.set_next_page_token(MakePageToken(list, absl::StrCat(page.address.raw())));
      break;
    }
    PagemapEntryToProto(machine, page, response.add_entries());
  }
  return absl::OkStatus();
}

absl::Status CheckAddress(const Machine& machine, uint64_t address) {
  if (machine.layout().word_bytes == 8 || address <= 0xffffffff) return absl::OkStatus();
  return FieldOutOfRange("address", "must fit into 32 bits, as the machine's addresses do");
}

ProcessorAccess AccessOf(const v1::TranslateVirtualAddressRequest& request) {
  return {request.access() == v1::TRANSLATION_ACCESS_WRITE, request.access() == v1::TRANSLATION_ACCESS_EXECUTE, !request.kernel_mode()};
}

absl::Status Translate(const Machine& machine, const v1::TranslateVirtualAddressRequest& request,
                       v1::TranslateVirtualAddressResponse& response) {
  MMLAB_RETURN_IF_ERROR(CheckAddress(machine, request.address()));
  MMLAB_ASSIGN_OR_RETURN(const Process* process, FindOptionalUser(machine, request.pid()));
  TranslationToProto(machine, TranslateVirtual(machine, process, VirtAddr(request.address()), AccessOf(request)), &response);
  return absl::OkStatus();
}

absl::Status Read(const Machine& machine, const v1::ReadMemoryRequest& request, v1::ReadMemoryResponse& response) {
  std::string* data = response.mutable_data();
  std::string* reason = response.mutable_reason();
  uint64_t done = 0;
  if (request.space() == v1::MEMORY_SPACE_PHYSICAL) {
    done = PhysicalAccess(machine).Read(PhysAddr(request.address()), request.length_bytes(), data, reason);
  } else {
    MMLAB_RETURN_IF_ERROR(CheckAddress(machine, request.address()));
    MMLAB_ASSIGN_OR_RETURN(const Process* process, FindOptionalUser(machine, request.pid()));
    done = ReadVirtual(machine, process, VirtAddr(request.address()), request.length_bytes(), data, reason);
  }
  if (!reason->empty()) response.set_failed_at(request.address() + done);
  return absl::OkStatus();
}

absl::Status CheckRead(const v1::ReadMemoryRequest& request) {
  if (request.space() != v1::MEMORY_SPACE_PHYSICAL && request.space() != v1::MEMORY_SPACE_VIRTUAL) {
    return InvalidField("space", "must be MEMORY_SPACE_PHYSICAL or MEMORY_SPACE_VIRTUAL");
  }
  if (request.length_bytes() > kMaxTransfer) return FieldOutOfRange("length_bytes", "must be at most 1 MiB");
  return absl::OkStatus();
}

}  // namespace

MemoryService::Reactor* MemoryService::GetAddressSpace(Context* context, const v1::GetAddressSpaceRequest* request,
                                                       v1::GetAddressSpaceResponse* response) {
  return HandleProcessRead(context_, context, request, ParseProcessName("name", request->name()), request->name(), ReadCost::kQuick,
                           [request, response](const MachineView& view, const Process& process) -> absl::Status {
                             MMLAB_RETURN_IF_ERROR(CheckAddressSpace(process, request->name()));
                             AddressSpaceToProto(view, process, response->mutable_address_space());
                             return absl::OkStatus();
                           });
}

MemoryService::Reactor* MemoryService::ListVmAreaStructs(Context* context, const v1::ListVmAreaStructsRequest* request,
                                                         v1::ListVmAreaStructsResponse* response) {
  return HandleProcessRead(context_, context, request, ParseProcessName("parent", request->parent()), request->parent(), ReadCost::kLong,
                           [request, response](const MachineView& view, const Process& process) -> absl::Status {
                             MMLAB_RETURN_IF_ERROR(CheckAddressSpace(process, request->parent()));
                             return ListVmas(view.machine, *process.mm, *request, *response);
                           });
}

MemoryService::Reactor* MemoryService::ListVmaStoreNodes(Context* context, const v1::ListVmaStoreNodesRequest* request,
                                                         v1::ListVmaStoreNodesResponse* response) {
  const auto parse = [&]() -> absl::StatusOr<ProcessName> {
    if (request->kind() != v1::VMA_STORE_KIND_RBTREE && request->kind() != v1::VMA_STORE_KIND_MAPLE) {
      return InvalidField("kind", "must be VMA_STORE_KIND_RBTREE or VMA_STORE_KIND_MAPLE");
    }
    return ParseProcessName("parent", request->parent());
  };
  return HandleProcessRead(context_, context, request, parse(), request->parent(), ReadCost::kLong,
                           [request, response](const MachineView& view, const Process& process) -> absl::Status {
                             MMLAB_RETURN_IF_ERROR(CheckAddressSpace(process, request->parent()));
                             return ListNodes(view.machine, *process.mm, *request, *response);
                           });
}

MemoryService::Reactor* MemoryService::ListPagemap(Context* context, const v1::ListPagemapRequest* request,
                                                   v1::ListPagemapResponse* response) {
  return HandleProcessRead(context_, context, request, ParseProcessName("parent", request->parent()), request->parent(), ReadCost::kLong,
                           [request, response](const MachineView& view, const Process& process) -> absl::Status {
                             MMLAB_RETURN_IF_ERROR(CheckAddressSpace(process, request->parent()));
                             return ListPages(view.machine, process, *request, *response);
                           });
}

MemoryService::Reactor* MemoryService::TranslateVirtualAddress(Context* context, const v1::TranslateVirtualAddressRequest* request,
                                                               v1::TranslateVirtualAddressResponse* response) {
  const auto parse = [&]() -> absl::StatusOr<absl::string_view> {
    if (!v1::TranslationAccess_IsValid(request->access())) return InvalidField("access", "must be a value of TranslationAccess");
    return ParseMachineName("machine", request->machine());
  };
  return HandleRead(context_, context, request, parse(), ReadCost::kQuick,
                    [request, response](const MachineView& view) { return Translate(view.machine, *request, *response); });
}

MemoryService::Reactor* MemoryService::ReadMemory(Context* context, const v1::ReadMemoryRequest* request,
                                                  v1::ReadMemoryResponse* response) {
  const auto parse = [&]() -> absl::StatusOr<absl::string_view> {
    MMLAB_RETURN_IF_ERROR(CheckRead(*request));
    return ParseMachineName("machine", request->machine());
  };
  return HandleRead(context_, context, request, parse(), ReadCost::kLong,
                    [request, response](const MachineView& view) { return Read(view.machine, *request, *response); });
}

}  // namespace mmlab
