#include "server/service/page_replacement_service.h"

#include "absl/strings/str_cat.h"
#include "server/host/errors.h"
#include "server/machine/machine.h"
#include "server/process/address_space.h"
#include "server/process/page_replacement.h"
#include "server/process/process.h"
#include "server/process/processes.h"
#include "server/service/handle_read.h"
#include "server/service/operation_converters.h"

namespace mmlab {

absl::Status CheckFields(const v1::SetPageReplacementRequest& request) {
  if (!v1::ReplacementPolicy_IsValid(request.policy()) || request.policy() == v1::REPLACEMENT_POLICY_UNSPECIFIED) {
    return InvalidField("policy", "must be LINUX, FIFO, LRU, CLOCK or OPTIMAL");
  }
  if (request.references_size() > static_cast<int>(PageReplacement::kMaxFrames)) {
    return FieldOutOfRange("references", absl::StrCat("must have at most ", PageReplacement::kMaxFrames, " addresses"));
  }
  const bool optimal = request.policy() == v1::REPLACEMENT_POLICY_OPTIMAL;
  if (optimal && request.references().empty()) return InvalidField("references", "must be set: OPTIMAL has to be told the future");
  if (!optimal && !request.references().empty()) return InvalidField("references", "must be empty: only OPTIMAL looks ahead");
  return absl::OkStatus();
}

op::SetPageReplacement ToNative(const v1::SetPageReplacementRequest& r) {
  return {Pid(r.pid()),     static_cast<ReplacementPolicy>(r.policy()),    r.frames(), r.address(),
          r.length_bytes(), {r.references().begin(), r.references().end()}};
}

namespace {

void ToProto(const Machine& machine, const Process& process, const PageReplacement& replacement, v1::PageReplacement* proto) {
  const int shift = machine.layout().page_size.shift();
  const PageReplacement::Bound& bound = replacement.bound();
  proto->set_policy(static_cast<v1::ReplacementPolicy>(bound.policy));
  proto->set_frames(bound.frames);
  proto->set_address(bound.first_page << shift);
  proto->set_length_bytes((bound.end_page - bound.first_page) << shift);
  proto->set_hand(static_cast<uint32_t>(replacement.hand()));
  proto->set_references(replacement.references());
  proto->set_loads(replacement.loads());
  proto->set_evictions(replacement.evictions());
  proto->set_position(replacement.position());
  for (const PageReplacement::Slot& slot : replacement.slots()) {
    v1::ReplacementSlot* to = proto->add_slots();
    if (!slot.page.has_value()) continue;
    const VirtAddr address(*slot.page << shift);
    const std::optional<bool> accessed = machine.processes().Accessed(process, address);
    if (!accessed.has_value()) continue;  // Somebody else took it since.
    to->set_occupied(true);
    to->set_address(address.raw());
    to->set_loaded(slot.loaded);
    to->set_used(slot.used);
    to->set_accessed(*accessed);
    if (const std::optional<size_t> next = replacement.NextUse(*slot.page)) to->set_next_use(*next);
  }
}

}  // namespace

PageReplacementService::Reactor* PageReplacementService::GetPageReplacement(Context* context, const v1::GetPageReplacementRequest* request,
                                                                            v1::GetPageReplacementResponse* response) {
  return HandleProcessRead(context_, context, request, ParseProcessName("name", request->name()), request->name(), ReadCost::kLong,
                           [request, response](const MachineView& view, const Process& process) -> absl::Status {
                             if (process.mm == nullptr || process.mm->replacement == nullptr) {
                               return ResourceNotFound("page_replacement", request->name());
                             }
                             ToProto(view.machine, process, *process.mm->replacement, response->mutable_page_replacement());
                             return absl::OkStatus();
                           });
}

}  // namespace mmlab
