#ifndef MMLAB_SERVER_SERVICE_MEMORY_VIEW_CONVERTERS_H_
#define MMLAB_SERVER_SERVICE_MEMORY_VIEW_CONVERTERS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "mmlab/v1/memory.pb.h"
#include "server/machine/virtual_translation.h"
#include "server/process/vm_area.h"
#include "server/process/vma_store.h"
#include "server/service/handle_read.h"

namespace mmlab {

// From structures of memory management to messages.

// REQUIRES: the process has an address space.
void AddressSpaceToProto(const MachineView& view, const Process& process, v1::AddressSpace* proto);
void VmAreaStructToProto(const Machine& machine, const VmArea& vma, v1::VmAreaStruct* proto);
// The nodes [first, first + count).
void RbStoreToProto(absl::Span<const StoredVma> vmas, absl::Span<const RbStoreNode> nodes, size_t first, size_t count,
                    v1::ListVmaStoreNodesResponse* proto);
void MapleStoreToProto(absl::Span<const StoredVma> vmas, absl::Span<const MapleStoreNode> nodes, const MapleSizes& sizes, size_t first,
                       size_t count, v1::ListVmaStoreNodesResponse* proto);
void TranslationToProto(const Machine& machine, const VirtualTranslation& translation, v1::TranslateVirtualAddressResponse* proto);

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_MEMORY_VIEW_CONVERTERS_H_
