#include "server/service/page_service.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/machine/machine.h"
#include "server/machine/movable_pages.h"
#include "server/physical/page_allocator.h"
#include "server/service/handle_read.h"
#include "server/service/page_token.h"
#include "server/service/view_converters.h"

namespace mmlab {
namespace {

constexpr size_t kMaxFrames = 4096;
constexpr int64_t kMaxBytes = int64_t{1} << 20;

absl::Status List(const MachineView& view, const v1::ListFramesRequest& request, v1::ListFramesResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size(), 1, kMaxFrames));
  const std::string list = absl::StrCat("ListFrames ", request.parent(), " ", request.first_pfn());
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(list, request.page_token()));
  uint64_t first = request.first_pfn();
  if (!after.empty() && !absl::SimpleAtoi(after, &first)) return InvalidField("page_token", "must be of this list");
  const uint64_t end_pfn = view.machine.memory().end_pfn().raw();
  if (first >= end_pfn) return FieldOutOfRange("first_pfn", absl::StrCat("must be below ", end_pfn));
  const uint64_t end = std::min(end_pfn, first + page_size);
  for (uint64_t pfn = first; pfn < end; ++pfn) FrameToProto(view.machine, pfn, response.add_frames());
  if (end < end_pfn) response.set_next_page_token(MakePageToken(list, absl::StrCat(end)));
  return absl::OkStatus();
}

absl::Status List(const MachineView& view, const v1::ListMovablePagesRequest& request, v1::ListMovablePagesResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  const std::string list = absl::StrCat("ListMovablePages ", request.parent());
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(list, request.page_token()));
  uint64_t last = 0;
  if (!after.empty() && !absl::SimpleAtoi(after, &last)) return InvalidField("page_token", "must be of this list");
  const auto& pages = view.machine.movable_pages().all();
  for (auto it = pages.upper_bound(last); it != pages.end(); ++it) {
    if (static_cast<size_t>(response.pages_size()) == page_size) {
      response.set_next_page_token(MakePageToken(list, absl::StrCat(response.pages().rbegin()->movable_id())));
      break;
    }
    v1::MovablePage* page = response.add_pages();
    page->set_movable_id(it->first);
    page->set_pfn(it->second.raw());
  }
  return absl::OkStatus();
}

absl::Status Read(const MachineView& view, const v1::ReadPhysicalRequest& request, v1::ReadPhysicalResponse& response) {
  if (request.length_bytes() < 0) return InvalidField("length_bytes", "must not be negative");
  if (request.length_bytes() > kMaxBytes) return FieldOutOfRange("length_bytes", "must be at most 1 MiB");
  const BuddyMemory& memory = view.machine.memory();
  const PageSize page_size = memory.page_size();
  const uint64_t memory_end = memory.end_pfn().raw() << page_size.shift();
  const auto length = static_cast<uint64_t>(request.length_bytes());
  if (request.address() > memory_end || length > memory_end - request.address()) {
    return FieldOutOfRange("address", absl::StrCat("must lie below the end of memory, ", memory_end, ", with all that is read"));
  }
  std::string& data = *response.mutable_data();
  data.resize(length);
  for (uint64_t done = 0; done < length;) {
    const uint64_t at = request.address() + done;
    const uint64_t offset = at & page_size.mask();
    const uint64_t part = std::min(length - done, page_size.bytes().raw() - offset);
    memory.contents().Read(page_size.FrameHolding(PhysAddr(at)), offset, data.data() + done, part);
    done += part;
  }
  return absl::OkStatus();
}

}  // namespace

PageService::Reactor* PageService::ListFrames(Context* context, const v1::ListFramesRequest* request, v1::ListFramesResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("parent", request->parent()), ReadCost::kLong,
                    [request, response](const MachineView& view) { return List(view, *request, *response); });
}

PageService::Reactor* PageService::ListMovablePages(Context* context, const v1::ListMovablePagesRequest* request,
                                                    v1::ListMovablePagesResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("parent", request->parent()), ReadCost::kQuick,
                    [request, response](const MachineView& view) { return List(view, *request, *response); });
}

PageService::Reactor* PageService::ReadPhysical(Context* context, const v1::ReadPhysicalRequest* request,
                                                v1::ReadPhysicalResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("parent", request->parent()), ReadCost::kQuick,
                    [request, response](const MachineView& view) { return Read(view, *request, *response); });
}

}  // namespace mmlab
