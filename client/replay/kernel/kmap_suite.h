#ifndef MMLAB_CLIENT_REPLAY_KERNEL_KMAP_SUITE_H_
#define MMLAB_CLIENT_REPLAY_KERNEL_KMAP_SUITE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/replay/kernel/suite_replayer.h"
#include "server/base/explanation.h"
#include "server/kernel/kmap.h"

namespace mmlab {

// Suite "kmap": mappings of high memory. Which frames the callers got is taken from the recording: the page allocator's state is not in it.
class KmapSuite final : public KernelSuiteReplayer {
 public:
  absl::Span<const absl::string_view> Arguments(absl::string_view op) const override;
  absl::Status Load(const nlohmann::ordered_json& line) override;
  void Perform(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer) override;
  void Dump(nlohmann::ordered_json& answer) override;
  std::vector<std::string> CheckInvariants() const override;

 private:
  Tracer tracer_;
  std::unique_ptr<Kmap> kmap_;
  std::map<int64_t, Pfn> frames_;  // By the recording's handle.
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_KERNEL_KMAP_SUITE_H_
