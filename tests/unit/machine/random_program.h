#ifndef MMLAB_TESTS_UNIT_MACHINE_RANDOM_PROGRAM_H_
#define MMLAB_TESTS_UNIT_MACHINE_RANDOM_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "server/base/random.h"
#include "server/machine/machine.h"
#include "server/machine/operation.h"

namespace mmlab {

// A program of the kind RandomProgram's processes run: text, data and some .bss at the layout's usual place, file "/bin/program".
ElfImage SmallProgram(LayoutKind layout);

// An endless sequence of operations on one machine, the same for the same seed as long as the machine gives the same answers: processes
// that come and go, map, touch, fork, lock, limit themselves; pages taken and given back; sysctls; and in every argument now and then what
// nobody should pass.
class RandomProgram {
 public:
  RandomProgram(uint64_t seed, const Machine& machine);

  Operation Next();
  // What the machine answered to the operation that Next() gave last.
  void Answered(const Operation& operation, const Outcome& outcome);

 private:
  struct Block {
    uint64_t pfn;
    int32_t order;
  };

  bool OneIn(uint64_t n) { return random_.Below(n) == 0; }
  uint64_t Edge();     // A number at some edge.
  uint64_t Address();  // Often one that is mapped.
  uint64_t Length();   // Often some pages.
  int32_t Order();
  int32_t Cpu();
  Pid AnyPid();  // Mostly of a living process.
  uint32_t Prot();
  uint32_t MmapFlags();
  Operation ProcessOperation();
  Operation MappingOperation(Pid pid);
  Operation MemoryOperation(Pid pid);
  Operation FileOperation(Pid pid);
  Operation PageOperation();
  Operation SlabOperation();
  Operation SysctlOperation();
  Operation SysfsOperation();
  Operation CgroupOperation(Pid pid);
  AccessRequest Access();

  Random random_;
  const Machine& machine_;
  Pid current_;
  int started_ = 0;  // Operations of the prologue done.
  std::vector<Block> blocks_;
  std::vector<uint64_t> objects_;  // Of slab caches; some are freed already.
};

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_MACHINE_RANDOM_PROGRAM_H_
