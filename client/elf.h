#ifndef MMLAB_CLIENT_ELF_H_
#define MMLAB_CLIENT_ELF_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "mmlab/v1/process.pb.h"

namespace mmlab {

// What exec needs of an ELF executable of this host.
struct ElfFile {
  v1::ElfImage image;  // path: the file's name below /bin.
  uint64_t size_bytes = 0;
  std::string first_bytes;  // At most 1 MiB.
};

// Reads 32-bit x86, 64-bit and 32-bit ARM executables, little-endian. NOT_FOUND: can't be read; INVALID_ARGUMENT: no ELF file, damaged, or
// of another machine. Trusts no offset in the file.
absl::StatusOr<ElfFile> ReadElf(const std::string& path);

// The same from bytes in memory; `size_bytes` is the size of the whole file.
absl::StatusOr<v1::ElfImage> ParseElf(const std::string& bytes, uint64_t size_bytes);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_ELF_H_
