#include "server/service/layout_service.h"

#include "server/base/status_macros.h"
#include "server/host/errors.h"
#include "server/host/names.h"
#include "server/host/spec_converter.h"
#include "server/machine/boot_explanation.h"
#include "server/machine/boot_log.h"
#include "server/machine/domains.h"
#include "server/machine/memory_map.h"
#include "server/procfs/kernel_layout.h"
#include "server/service/handle_read.h"
#include "server/service/outcome_converters.h"

namespace mmlab {
namespace {

constexpr int kMasks[] = {24, 30, 32, 36, 40, 64};  // ISA, old sound cards, plain PCI, PAE's, many network cards, PCI Express.

void LayoutToProto(const Machine& machine, const KernelLayout& layout, v1::GetKernelLayoutResponse* response) {
  for (const LayoutValue& value : LayoutValues(layout)) {
    v1::LayoutValue* out = response->add_values();
    out->set_name(std::string(value.name));
    out->set_value(value.value);
    out->set_kind(static_cast<v1::LayoutValue::Kind>(static_cast<int>(value.kind) + 1));
    out->set_meaning(std::string(value.meaning));
  }
  for (const LayoutRegion& region : MachineRegions(machine, layout)) {
    v1::LayoutRegion* out = response->add_regions();
    out->set_name(region.name);
    out->set_start_address(region.start.raw());
    out->set_last_address(region.last.raw());
    out->set_meaning(region.meaning);
  }
  response->set_text(KernelLayoutText(machine, layout));
}

void DomainsToProto(const Machine& machine, v1::GetAddressDomainsResponse* response) {
  const AddressDomains domains = DomainsOf(machine);
  for (const AddressWindow& window : domains.windows()) {
    v1::AddressWindow* out = response->add_windows();
    out->set_controller(ControllerName(window.target));
    out->set_name(window.name);
    out->set_cpu_address(window.cpu.start.raw());
    out->set_target_address(window.target_start);
    out->set_target(static_cast<v1::AddressDomain>(window.target));
    out->set_length_bytes(window.cpu.length().raw());
  }
  for (const int bits : kMasks) {
    const DmaMaskEffect effect = EffectOfDmaMask(machine, bits);
    v1::DmaMask* out = response->add_masks();
    out->set_bits(bits);
    out->set_reachable_bytes(effect.reachable.raw());
    for (const std::string& zone : effect.zones) out->add_zones(zone);
    out->set_advice(effect.advice);
  }
}

absl::Status CheckDomain(absl::string_view field, v1::AddressDomain domain) {
  if (domain >= v1::ADDRESS_DOMAIN_CPU && domain <= v1::ADDRESS_DOMAIN_PCI) return absl::OkStatus();
  return InvalidField(field, "must be ADDRESS_DOMAIN_CPU, ADDRESS_DOMAIN_DRAM or ADDRESS_DOMAIN_PCI");
}

}  // namespace

LayoutService::Reactor* LayoutService::GetKernelLayout(Context* context, const v1::GetKernelLayoutRequest* request,
                                                       v1::GetKernelLayoutResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kQuick,
                    [request, response](const MachineView& view) -> absl::Status {
                      if (request->page_size_bytes() == 0 && request->va_bits() == 0) {
                        LayoutToProto(view.machine, view.machine.kernel_layout(), response);
                        return absl::OkStatus();
                      }
                      const absl::StatusOr<KernelLayout> layout =
                          BuiltOtherwise(view.machine.spec(), static_cast<uint64_t>(request->page_size_bytes()), request->va_bits());
                      if (!layout.ok()) return DetailedBootError(layout.status());
                      LayoutToProto(view.machine, *layout, response);
                      return absl::OkStatus();
                    });
}

LayoutService::Reactor* LayoutService::GetBootLog(Context* context, const v1::GetBootLogRequest* request,
                                                  v1::GetBootLogResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kLong,
                    [request, response](const MachineView& view) {
                      if (request->explain()) {
                        ExplanationToProto(ExplainBoot(view.machine.spec()), Explanation::kMaxSteps, response->mutable_explanation());
                      }
                      for (const BootLogLine& line : BootLog(view.machine)) {
                        v1::BootLogLine* out = response->add_lines();
                        out->set_stage(static_cast<v1::BootStage>(line.stage));
                        out->set_level(line.level);
                        out->set_text(line.text);
                        out->set_why(line.why);
                      }
                      response->set_text(BootLogText(view.machine));
                      return absl::OkStatus();
                    });
}

LayoutService::Reactor* LayoutService::TranslateAddress(Context* context, const v1::TranslateAddressRequest* request,
                                                        v1::TranslateAddressResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kQuick,
                    [request, response](const MachineView& view) -> absl::Status {
                      MMLAB_RETURN_IF_ERROR(CheckDomain("from", request->from()));
                      MMLAB_RETURN_IF_ERROR(CheckDomain("to", request->to()));
                      const AddressDomains::Translation result =
                          DomainsOf(view.machine)
                              .Translate(static_cast<AddressDomain>(request->from()), static_cast<AddressDomain>(request->to()),
                                         request->address());
                      response->set_mapped(result.address.has_value());
                      response->set_address(result.address.value_or(0));
                      for (const std::string& step : result.steps) response->add_steps(step);
                      return absl::OkStatus();
                    });
}

LayoutService::Reactor* LayoutService::GetAddressDomains(Context* context, const v1::GetAddressDomainsRequest* request,
                                                         v1::GetAddressDomainsResponse* response) {
  return HandleRead(context_, context, request, ParseMachineName("machine", request->machine()), ReadCost::kLong,
                    [response](const MachineView& view) {
                      DomainsToProto(view.machine, response);
                      return absl::OkStatus();
                    });
}

}  // namespace mmlab
