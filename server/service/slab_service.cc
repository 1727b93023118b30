#include "server/service/slab_service.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/kernel/slab_allocator.h"
#include "server/machine/machine.h"
#include "server/service/handle_read.h"
#include "server/service/page_token.h"

namespace mmlab {
namespace {

constexpr size_t kMaxSlabs = 1000;

const char* FreelistName(SlabFreelist freelist) {
  switch (freelist) {
    case SlabFreelist::kInObject:
      return "in_object";
    case SlabFreelist::kOffSlab:
      return "off_slab";
    case SlabFreelist::kOnSlab:
      break;
  }
  return "on_slab";
}

// What SLAB alone has.
void ArraysToProto(const SlabCacheView& view, v1::SlabCache* proto) {
  const SlabGeometry& g = view.geometry;
  if (g.limit == 0) return;
  proto->set_limit(g.limit);
  proto->set_batchcount(g.batchcount);
  proto->set_sharedfactor(g.shared);
  proto->set_shared_avail(static_cast<int64_t>(view.shared_objects));
  proto->set_array_objects(static_cast<int64_t>(view.array_objects));
  proto->set_active_slabs(static_cast<int64_t>(view.active_slabs));
  proto->set_colours(g.colours);
  proto->set_colour_offset_bytes(g.colour_bytes);
  proto->set_freelist(FreelistName(g.freelist));
}

void CacheToProto(const SlabCacheView& view, v1::SlabCache* proto) {
  const SlabGeometry& g = view.geometry;
  proto->set_name(view.name);
  for (const std::string& alias : view.aliases) proto->add_aliases(alias);
  proto->set_object_size_bytes(g.object_size);
  proto->set_slab_size_bytes(g.size);
  proto->set_align_bytes(g.align);
  proto->set_order(g.order);
  proto->set_objs_per_slab(g.objects);
  proto->set_min_partial(g.min_partial);
  proto->set_cpu_partial(g.cpu_partial);
  proto->set_cpu_partial_slabs_limit(g.cpu_partial_slabs);
  proto->set_flags(g.flags);
  proto->set_constructor(view.constructor);
  proto->set_usersize_bytes(view.usersize);
  proto->set_refcount(view.refcount);
  proto->set_slabs(static_cast<int64_t>(view.boot_slabs + view.slabs));
  proto->set_total_objects(static_cast<int64_t>(view.boot_total_objects + view.total_objects));
  proto->set_allocated_objects(static_cast<int64_t>(view.boot_active_objects + view.allocated));
  proto->set_active_objects(static_cast<int64_t>(view.boot_active_objects + view.active_objects));
  proto->set_boot_slabs(static_cast<int64_t>(view.boot_slabs));
  proto->set_boot_total_objects(static_cast<int64_t>(view.boot_total_objects));
  proto->set_boot_active_objects(static_cast<int64_t>(view.boot_active_objects));
  proto->set_partial(static_cast<int64_t>(view.node_partial));
  proto->set_cpu_partial_slabs(static_cast<int64_t>(view.cpu_partial_slabs));
  proto->set_free_pointer_offset_bytes(g.free_ptr_offset);
  ArraysToProto(view, proto);
}

const char* PlaceName(SlabPlace place) {
  switch (place) {
    case SlabPlace::kCpu:
      return "cpu";
    case SlabPlace::kCpuPartial:
      return "cpu_partial";
    case SlabPlace::kNodePartial:
      return "node_partial";
    case SlabPlace::kFull:
      return "full";
    case SlabPlace::kFree:
      return "free";
    case SlabPlace::kSmall:
      return "small";
    case SlabPlace::kMedium:
      return "medium";
    case SlabPlace::kLarge:
      return "large";
    case SlabPlace::kNowhere:
      break;
  }
  return "";
}

void SlabToProto(const SlabPageView& view, v1::SlabPage* proto) {
  proto->set_pfn(view.pfn.raw());
  proto->set_order(view.order);
  proto->set_place(PlaceName(view.place));
  proto->set_cpu(view.cpu);
  proto->set_objects(view.objects);
  proto->set_inuse(view.inuse);
  proto->set_allocated(view.allocated);
}

absl::Status List(const SlabAllocator& slab, const v1::ListSlabCachesRequest& request, v1::ListSlabCachesResponse& response) {
  MMLAB_ASSIGN_OR_RETURN(const size_t page_size, PageSizeFrom(request.page_size()));
  const std::string list = absl::StrCat("ListSlabCaches ", request.parent());
  MMLAB_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(list, request.page_token()));
  uint32_t below = UINT32_MAX;
  if (!after.empty() && !absl::SimpleAtoi(after, &below)) return InvalidField("page_token", "must be of this list");
  std::vector<SlabCacheId> ids = slab.Caches();
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    if (static_cast<uint32_t>(*id) >= below) continue;
    if (static_cast<size_t>(response.caches_size()) == page_size) {
      response.set_next_page_token(MakePageToken(list, absl::StrCat(static_cast<uint32_t>(*id) + 1)));
      break;
    }
    CacheToProto(slab.View(*id), response.add_caches());
  }
  return absl::OkStatus();
}

absl::Status Get(const SlabAllocator& slab, const v1::GetSlabCacheRequest& request, v1::GetSlabCacheResponse& response) {
  const std::optional<SlabCacheId> id = slab.Find(request.cache());
  if (!id.has_value()) return ResourceNotFound("slab_cache", request.cache());
  CacheToProto(slab.View(*id), response.mutable_cache());
  for (const SlabPageView& page : slab.Slabs(*id)) {
    if (static_cast<size_t>(response.slabs_size()) == kMaxSlabs) break;
    SlabToProto(page, response.add_slabs());
  }
  return absl::OkStatus();
}

absl::Status Get(const SlabAllocator& slab, const v1::GetSlabObjectRequest& request, v1::GetSlabObjectResponse& response) {
  const SlabObjectView view = slab.Locate(VirtAddr(request.address()));
  if (view.fault == SlabFault::kNotSlab) return ResourceNotFound("slab_object", absl::StrFormat("%#x", request.address()));
  response.set_object_address(view.start.raw());
  SlabToProto(view.slab, response.mutable_slab());
  if (!view.object.has_value()) {
    response.set_allocated(true);
    return absl::OkStatus();
  }
  if (view.cache.has_value()) response.set_cache(slab.View(*view.cache).name);
  response.set_index(view.object->index);
  response.set_allocated(slab.Locate(view.start).fault == SlabFault::kNone);
  for (const bool held : slab.AllocatedIn(*view.object)) response.mutable_neighbours()->push_back(held ? '#' : '.');
  return absl::OkStatus();
}

absl::Status Get(const SlabAllocator& slab, const v1::GetSlabUsageRequest&, v1::GetSlabUsageResponse& response) {
  const SlabUsage usage = slab.Usage();
  response.set_objects(static_cast<int64_t>(usage.objects));
  response.set_object_bytes(static_cast<int64_t>(usage.object_bytes));
  response.set_pages(static_cast<int64_t>(usage.pages));
  return absl::OkStatus();
}

// Answers from the slab allocator of the machine that the request names.
template <typename Request, typename Response>
auto FromSlab(const Request* request, Response* response) {
  return [request, response](const MachineView& view) {
    absl::Status status;
    view.machine.ReadSlab([&](const SlabAllocator& slab) {
      if constexpr (requires { request->parent(); }) {
        status = List(slab, *request, *response);
      } else {
        status = Get(slab, *request, *response);
      }
    });
    return status;
  };
}

}  // namespace

SlabService::Reactor* SlabService::ListSlabCaches(Context* context, const v1::ListSlabCachesRequest* request,
                                                  v1::ListSlabCachesResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("parent", request->parent()), ReadCost::kLong,
                    FromSlab(request, response));
}

SlabService::Reactor* SlabService::GetSlabCache(Context* context, const v1::GetSlabCacheRequest* request,
                                                v1::GetSlabCacheResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kLong,
                    FromSlab(request, response));
}

SlabService::Reactor* SlabService::GetSlabUsage(Context* context, const v1::GetSlabUsageRequest* request,
                                                v1::GetSlabUsageResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kLong,
                    FromSlab(request, response));
}

SlabService::Reactor* SlabService::GetSlabObject(Context* context, const v1::GetSlabObjectRequest* request,
                                                 v1::GetSlabObjectResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kLong,
                    FromSlab(request, response));
}

}  // namespace mmlab
