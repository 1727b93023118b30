#ifndef MMLAB_CLIENT_REPLAY_KERNEL_SLAB_SUITE_H_
#define MMLAB_CLIENT_REPLAY_KERNEL_SLAB_SUITE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/replay/kernel/suite_replayer.h"
#include "server/base/explanation.h"
#include "server/kernel/percpu_counter.h"
#include "server/kernel/slub.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

// Suite "slab": caches, kmalloc, objects, and per-CPU counters. Starts from the recorded list of caches where there is one, else from those
// that the allocator makes itself. Pages come from a machine of 128 MiB of its own: only which slab an object is in was recorded.
class SlabSuite final : public KernelSuiteReplayer {
 public:
  absl::Span<const absl::string_view> Arguments(absl::string_view op) const override;
  absl::Status Load(const nlohmann::ordered_json& line) override;
  void Perform(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer) override;
  // kmalloc() and kfree() alone: the object comes back at the next kmalloc() of its class. Which one it is was drawn before the recording
  // began, and its first answer is the first that anybody can know of it.
  void Learn(const nlohmann::ordered_json& recorded) override;
  void Dump(nlohmann::ordered_json& answer) override;
  std::vector<std::string> CheckInvariants() const override;

 private:
  using Handler = void (SlabSuite::*)(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  struct Operation;
  struct Held {
    int64_t cache;  // As the recording numbers them.
    SlabObject object;
  };

  static const Operation* Find(absl::string_view op);
  absl::Status Start(const nlohmann::ordered_json& header);
  void Adopt(const nlohmann::ordered_json& caches);

  void Create(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Destroy(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Shrink(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Kmalloc(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Alloc(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void Free(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void AllocBulk(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void FreeBulk(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void CounterInit(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void CounterAdd(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);
  void CounterSet(const nlohmann::ordered_json& op, nlohmann::ordered_json& answer);

  void AddObject(SlabObject object, nlohmann::ordered_json& answer) const;
  void AddLists(SlabCacheId id, nlohmann::ordered_json& answer) const;

  Tracer tracer_;
  int cpus_ = 1;
  std::unique_ptr<BuddyMemory> memory_;
  std::unique_ptr<Slub> slub_;
  std::map<int64_t, SlabCacheId> caches_;
  std::map<int64_t, Held> held_;
  std::map<int64_t, PercpuCounter> counters_;
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_KERNEL_SLAB_SUITE_H_
