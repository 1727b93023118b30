#ifndef MMLAB_TESTS_UNIT_MACHINE_SLAB_MACHINE_H_
#define MMLAB_TESTS_UNIT_MACHINE_SLAB_MACHINE_H_

#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "gtest/gtest.h"
#include "server/machine/machine.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {

// A machine of a preset with one of the slab allocators.
using SlabMachine = std::tuple<const char*, SlabAllocatorKind>;

inline std::string SlabMachineName(const testing::TestParamInfo<SlabMachine>& info) {
  constexpr const char* kKinds[] = {"", "Slub", "Slab", "Slob"};
  std::string name = std::string(kKinds[static_cast<int>(std::get<1>(info.param))]) + std::get<0>(info.param);
  std::erase(name, '-');
  return name;
}

class SlabMachineTest : public testing::TestWithParam<SlabMachine> {
 protected:
  void SetUp() override {
    MachineSpec spec = PresetSpec(std::get<0>(GetParam()));
    spec.slab_allocator = std::get<1>(GetParam());
    absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Boot(std::move(spec));
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
  }

  std::unique_ptr<Machine> machine_;
};

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_MACHINE_SLAB_MACHINE_H_
