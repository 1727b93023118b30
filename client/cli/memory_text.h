#ifndef MMLAB_CLIENT_CLI_MEMORY_TEXT_H_
#define MMLAB_CLIENT_CLI_MEMORY_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "mmlab/v1/memory.pb.h"

namespace mmlab {

// Structures of memory management as text for a terminal.

// mm_struct: a line for each field, with the kernel's names.
std::string AddressSpaceText(const v1::AddressSpace& mm);
// A table of VMAs; `wide`: with page protection, anon_vma, operations.
std::string VmAreaStructsText(const std::vector<v1::VmAreaStruct>& areas, bool wide);
// The nodes of a store, indented by their depth; `summary` has the figures of the whole store.
std::string VmaStoreText(const std::vector<v1::VmaStoreNode>& nodes, const v1::ListVmaStoreNodesResponse& summary);
// The walk, level by level; `wide`: with each field of each entry and its meaning.
// Pages of a process, one a line.
std::string PagemapText(const std::vector<v1::PagemapEntry>& entries);
std::string TranslationText(const v1::TranslateVirtualAddressResponse& translation, bool wide);
// As hexdump -C: sixteen bytes a line behind their address.
std::string HexDump(uint64_t address, const std::string& bytes);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_MEMORY_TEXT_H_
