#ifndef MMLAB_CLIENT_REPLAY_KERNEL_BUDDY_SUITE_H_
#define MMLAB_CLIENT_REPLAY_KERNEL_BUDDY_SUITE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/replay/kernel/suite_replayer.h"
#include "server/base/explanation.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// Suite "buddy": calls of the page allocator.
class BuddySuite final : public KernelSuiteReplayer {
 public:
  absl::Span<const absl::string_view> Arguments(absl::string_view op) const override;
  absl::Status Load(const nlohmann::ordered_json& line) override;
  void Perform(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer) override;
  void Dump(nlohmann::ordered_json& answer) override;
  std::vector<std::string> CheckInvariants() const override;

 private:
  // One operation of the suite.
  using Handler = void (BuddySuite::*)(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  struct Operation;
  static const Operation* Find(absl::string_view op);

  void Alloc(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Free(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void AllocExact(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void FreeExact(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void AllocBulk(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void FreeList(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Split(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void FreeSub(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Drain(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Hold(int64_t handle, std::optional<Pfn> pfn, nlohmann::ordered_json& answer);
  // What a handle holds; nothing when its allocation failed or it was given back.
  std::optional<Pfn> Held(const nlohmann::ordered_json& op) const;

  Tracer tracer_;
  nlohmann::ordered_json header_;
  std::unique_ptr<BuddyMemory> memory_;
  std::map<int64_t, Pfn> held_;  // By the recording's handle.
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_KERNEL_BUDDY_SUITE_H_
