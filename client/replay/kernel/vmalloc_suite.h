#ifndef MMLAB_CLIENT_REPLAY_KERNEL_VMALLOC_SUITE_H_
#define MMLAB_CLIENT_REPLAY_KERNEL_VMALLOC_SUITE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/replay/kernel/suite_replayer.h"
#include "server/base/explanation.h"
#include "server/kernel/vmalloc.h"

namespace mmlab {

// Suite "vmalloc": areas of the kernel's address space. Addresses only: the recordings do not say which frames stood behind them.
class VmallocSuite final : public KernelSuiteReplayer {
 public:
  absl::Span<const absl::string_view> Arguments(absl::string_view op) const override;
  absl::Status Load(const nlohmann::ordered_json& line) override;
  void Perform(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer) override;
  void Dump(nlohmann::ordered_json& answer) override;
  std::vector<std::string> CheckInvariants() const override;

 private:
  // What a handle holds.
  struct Held {
    VirtAddr address;
    uint64_t pages = 0;  // As the caller asked for them.
  };

  void LoadHeader(const nlohmann::ordered_json& header);
  absl::Status LoadState(const nlohmann::ordered_json& state);
  SysResult<VmallocOutcome> Allocate(const std::string& name, const nlohmann::ordered_json& op);
  SysResult<VmallocOutcome> Release(const std::string& name, const Held& held);

  Tracer tracer_;
  VmallocConfig config_;
  std::unique_ptr<Vmalloc> vmalloc_;
  std::map<int64_t, Held> held_;  // By the recording's handle.
  int64_t other_pages_ = 0;       // Of VmallocUsed: in no area of the first dump.
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_KERNEL_VMALLOC_SUITE_H_
