#ifndef MMLAB_SERVER_SERVICE_VIEW_CONVERTERS_H_
#define MMLAB_SERVER_SERVICE_VIEW_CONVERTERS_H_

#include <vector>

#include "mmlab/v1/machine.pb.h"
#include "mmlab/v1/page.pb.h"
#include "mmlab/v1/process.pb.h"
#include "server/physical/frame.h"
#include "server/process/process.h"
#include "server/process/views.h"
#include "server/service/handle_read.h"

namespace mmlab {

// From what can be read of a machine to messages.

// kShort: as in lists, without state_hash and without the boot's long tables. kFull walks the whole state for the hash.
enum class MachineDetail : uint8_t { kShort, kComplete, kFull };
void MachineToProto(const MachineView& view, MachineDetail detail, v1::Machine* proto);

void ProcessToProto(const MachineView& view, const Process& process, v1::ProcessView detail, v1::Process* proto);

// The VMAs [first, first + count) of a process, with their smaps or without.
void VmAreasToProto(const std::vector<VmAreaView>& areas, const std::vector<Smaps>* smaps, size_t first, size_t count,
                    google::protobuf::RepeatedPtrField<v1::VmArea>* proto);

// "anon", "page_table": as v1::Frame.state has it.
const char* FrameStateName(FrameState state);
// REQUIRES: the frame is below the machine's end_pfn.
void FrameToProto(const Machine& machine, uint64_t pfn, v1::Frame* proto);

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_VIEW_CONVERTERS_H_
