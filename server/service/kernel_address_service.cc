#include "server/service/kernel_address_service.h"

#include "server/host/errors.h"
#include "server/host/names.h"
#include "server/kernel/percpu_allocator.h"
#include "server/machine/machine.h"
#include "server/service/handle_read.h"

namespace mmlab {
namespace {

constexpr int kMaxChunks = 1000;

void ChunksToProto(const PercpuAllocator& percpu, v1::ListPercpuChunksResponse& response) {
  response.set_unit_size_bytes(percpu.unit_size());
  response.set_pages(static_cast<int64_t>(percpu.pages()));
  response.set_empty_populated_pages(static_cast<int64_t>(percpu.empty_populated_pages()));
  for (const PercpuAllocator::ChunkView& view : percpu.Chunks()) {
    if (response.chunks_size() == kMaxChunks) return;
    v1::PercpuChunk* chunk = response.add_chunks();
    chunk->set_base_address(view.base.raw());
    chunk->set_unit_pages(view.pages);
    chunk->set_populated_pages(view.populated);
    chunk->set_empty_populated_pages(view.empty_populated);
    chunk->set_free_bytes(view.free_bytes);
    chunk->set_largest_free_bytes(view.largest_free);
    chunk->set_allocations(view.allocations);
    chunk->set_slot(view.slot);
    chunk->set_immutable(view.immutable);
    chunk->set_isolated(view.isolated);
  }
}

}  // namespace

KernelAddressService::Reactor* KernelAddressService::ListPercpuChunks(Context* context, const v1::ListPercpuChunksRequest* request,
                                                                      v1::ListPercpuChunksResponse* response) {
  return HandleRead(
      context_, context, request, ParseMachineName("parent", request->parent()), ReadCost::kLong, [response](const MachineView& view) {
        const bool known = view.machine.ReadPercpu([response](const PercpuAllocator& percpu) { ChunksToProto(percpu, *response); });
        return known ? absl::OkStatus() : NotSimulated("per-CPU memory of a machine whose description does not say where it lies");
      });
}

}  // namespace mmlab
