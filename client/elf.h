#ifndef MMLAB_CLIENT_ELF_H_
#define MMLAB_CLIENT_ELF_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "mmlab/v1/machine.pb.h"
#include "mmlab/v1/process.pb.h"

namespace mmlab {

// What exec needs of an ELF executable of this host.
struct ElfFile {
  v1::ElfImage image;  // path: the file's name below /bin.
  uint64_t size_bytes = 0;
  std::string first_bytes;  // At most 1 MiB.
  std::string interpreter;  // What PT_INTERP names; empty: none.
};

// Reads an executable, or an interpreter, for a layout: 32-bit x86 (EM_386), 64-bit ARM (EM_AARCH64) or 32-bit ARM (EM_ARM), which ARM64
// machines run too. NOT_FOUND: can't be read; INVALID_ARGUMENT: no ELF file, damaged, or for another kind of computer. Trusts nothing in
// the file.
absl::StatusOr<ElfFile> ReadElf(const std::string& path, v1::Layout layout);

// The same from bytes in memory; `size_bytes` is the size of the whole file.
absl::StatusOr<v1::ElfImage> ParseElf(const std::string& bytes, uint64_t size_bytes, v1::Layout layout);

// The path that PT_INTERP of an image names, from the bytes that it was parsed from; empty: none. INVALID_ARGUMENT where Linux answers
// ENOEXEC: shorter than 2 bytes, longer than 4096, no NUL at its end.
absl::StatusOr<std::string> InterpreterOf(const v1::ElfImage& image, const std::string& bytes);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_ELF_H_
