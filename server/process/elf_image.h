#ifndef MMLAB_SERVER_PROCESS_ELF_IMAGE_H_
#define MMLAB_SERVER_PROCESS_ELF_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace mmlab {

// e_machine (include/uapi/linux/elf-em.h).
inline constexpr uint32_t kElf386 = 3;
inline constexpr uint32_t kElfArm = 40;
inline constexpr uint32_t kElfAarch64 = 183;

// One entry of an ELF program header table (Elf32_Phdr, Elf64_Phdr), with its fields as they stand in the file: not yet validated.
struct ProgramHeader {
  enum class Type : uint8_t { kOther = 0, kLoad = 1, kInterp = 2, kGnuStack = 3 };
  Type type = Type::kOther;
  uint64_t offset = 0;
  uint64_t vaddr = 0;
  uint64_t filesz = 0;
  uint64_t memsz = 0;
  uint32_t flags = 0;  // PF_X 1, PF_W 2, PF_R 4.
  uint64_t align = 0;
};

// What exec needs to know of an ELF file; the bytes come from the machine's file of that path.
struct ElfImage {
  std::string path;
  uint64_t entry = 0;
  bool position_independent = false;  // ET_DYN.
  uint32_t machine = 0;               // e_machine; 0: the layout's own.
  std::vector<ProgramHeader> program_headers;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_ELF_IMAGE_H_
