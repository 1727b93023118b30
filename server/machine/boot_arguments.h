#ifndef MMLAB_SERVER_MACHINE_BOOT_ARGUMENTS_H_
#define MMLAB_SERVER_MACHINE_BOOT_ARGUMENTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace mmlab {

// A change to the firmware's map that the command line asks for (mem=, memmap=). Types are numbers of FirmwareRange::Type.
struct MemoryEdit {
  enum class Kind : uint8_t {
    kExactMap,  // "exactmap": forget what firmware said.
    kLimit,     // "mem=SIZE", "memmap=SIZE": no RAM from `size` on. On ARM64 (mem= only): no more RAM than `size` in all.
    kAdd,       // "memmap=SIZE@START" (RAM), "#" (ACPI), "$" (reserved).
    kChange,    // "memmap=SIZE%START-FROM+TO": what has type `from` (0: any) there becomes `to` (0: nothing).
  };
  Kind kind;
  bool memmap = false;  // From memmap=, which ARM64 does not know.
  uint64_t start = 0;
  uint64_t size = 0;
  int from = 0;
  int to = 0;
};

// kernelcore=, movablecore=: an amount in bytes or in percent of RAM; nothing of both: not given.
struct CoreSize {
  uint64_t bytes = 0;
  uint64_t percent = 0;
};

// cma=SIZE[@START[-END]].
struct CmaArgument {
  uint64_t size = 0;
  uint64_t base = 0;   // 0: anywhere.
  uint64_t limit = 0;  // First address behind where it may lie; 0: anywhere.
};

// One of the words about huge-page pools; their order matters.
struct HugetlbArgument {
  enum class Kind : uint8_t { kPages, kSize, kDefaultSize };  // hugepages=N, hugepagesz=SIZE, default_hugepagesz=SIZE.
  Kind kind;
  uint64_t value = 0;  // Pages, or bytes of one.
};

// What a kernel's command line says of memory. The last of several wins, but each mem= and memmap= counts. What the kernel would not
// understand is left out, as it does. Linux: parse_memopt(), parse_memmap_one(), cmdline_parse_core(), early_cma(), parse_vmalloc(),
// parse_highmem(), set_debug_rodata(), hugepages_setup() and its neighbours.
struct BootArguments {
  std::vector<MemoryEdit> edits;
  CoreSize kernelcore;
  CoreSize movablecore;
  std::optional<CmaArgument> cma;
  std::optional<uint64_t> vmalloc;  // Bytes.
  std::optional<uint64_t> highmem;  // Bytes.
  std::string rodata;               // rodata=: "off", "on", on ARM64 also "full"; empty: not given, which is the last of them.
  std::vector<HugetlbArgument> hugetlb;
};
BootArguments ParseBootArguments(absl::string_view command_line);

// A number with an optional suffix K, M, G, T, P or E, decimal, octal or hexadecimal as in C; takes it off `text`. Linux: memparse().
uint64_t ParseMemory(absl::string_view& text);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_BOOT_ARGUMENTS_H_
