#include "client/elf.h"

#include <elf.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

constexpr uint64_t kMaxContent = uint64_t{1} << 20;
constexpr int kMaxProgramHeaders = 128;

// A fixed-size record at an offset; false when the bytes end before it does.
template <typename Record>
bool ReadAt(const std::string& bytes, uint64_t offset, Record* record) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(Record)) return false;
  std::memcpy(record, bytes.data() + offset, sizeof(Record));
  return true;
}

v1::ProgramHeader::Type TypeOf(uint32_t type) {
  switch (type) {
    case PT_LOAD:
      return v1::ProgramHeader::TYPE_LOAD;
    case PT_INTERP:
      return v1::ProgramHeader::TYPE_INTERP;
    case PT_GNU_STACK:
      return v1::ProgramHeader::TYPE_GNU_STACK;
    default:
      return v1::ProgramHeader::TYPE_UNSPECIFIED;
  }
}

template <typename Header, typename Segment>
absl::StatusOr<v1::ElfImage> Parse(const std::string& bytes, uint64_t size_bytes, int machine) {
  Header header;
  if (!ReadAt(bytes, 0, &header)) return absl::InvalidArgumentError("shorter than an ELF header");
  if (header.e_machine != machine) {
    return absl::InvalidArgumentError(absl::StrCat("for another kind of computer (e_machine ", header.e_machine, ", not ", machine, ")"));
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) return absl::InvalidArgumentError("not an executable (ET_EXEC or ET_DYN)");
  if (header.e_phentsize != sizeof(Segment)) return absl::InvalidArgumentError("program headers of a size that this class does not have");
  if (header.e_phnum == 0 || header.e_phnum > kMaxProgramHeaders) {
    return absl::InvalidArgumentError(absl::StrCat("has ", header.e_phnum, " program headers; 1 to ", kMaxProgramHeaders, " are read"));
  }
  v1::ElfImage image;
  image.set_entry_address(header.e_entry);
  image.set_position_independent(header.e_type == ET_DYN);
  for (int i = 0; i < header.e_phnum; ++i) {
    Segment segment;
    const uint64_t offset = uint64_t{header.e_phoff} + static_cast<uint64_t>(i) * sizeof(Segment);
    if (offset < header.e_phoff || !ReadAt(bytes, offset, &segment))
      return absl::InvalidArgumentError("its program headers lie outside the file");
    if (segment.p_type == PT_LOAD) {
      if (segment.p_offset > size_bytes || segment.p_filesz > size_bytes - segment.p_offset) {
        return absl::InvalidArgumentError(absl::StrCat("segment ", i, " lies outside the file"));
      }
      if (segment.p_memsz < segment.p_filesz)
        return absl::InvalidArgumentError(absl::StrCat("segment ", i, " is larger in the file than in memory"));
    }
    v1::ProgramHeader& out = *image.add_program_headers();
    out.set_type(TypeOf(segment.p_type));
    out.set_offset_bytes(segment.p_offset);
    out.set_virtual_address(segment.p_vaddr);
    out.set_file_size_bytes(segment.p_filesz);
    out.set_memory_size_bytes(segment.p_memsz);
    out.set_flags(segment.p_flags);
    out.set_align_bytes(segment.p_align);
  }
  return image;
}

}  // namespace

absl::StatusOr<v1::ElfImage> ParseElf(const std::string& bytes, uint64_t size_bytes, v1::Layout layout) {
  if (bytes.size() < EI_NIDENT || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0) return absl::InvalidArgumentError("not an ELF file");
  if (bytes[EI_DATA] != ELFDATA2LSB) return absl::InvalidArgumentError("not little-endian");
  const bool arm64 = layout == v1::LAYOUT_ARM64;
  if (bytes[EI_CLASS] != (arm64 ? ELFCLASS64 : ELFCLASS32)) {
    return absl::InvalidArgumentError(arm64 ? "not a 64-bit ELF file" : "not a 32-bit ELF file");
  }
  return arm64 ? Parse<Elf64_Ehdr, Elf64_Phdr>(bytes, size_bytes, EM_AARCH64) : Parse<Elf32_Ehdr, Elf32_Phdr>(bytes, size_bytes, EM_386);
}

absl::StatusOr<ElfFile> ReadElf(const std::string& path, v1::Layout layout) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  ElfFile file;
  file.size_bytes = std::filesystem::file_size(path, error);
  std::ifstream in(path, std::ios::binary);
  file.first_bytes.resize(std::min(file.size_bytes, kMaxContent));
  if (error || !in.read(file.first_bytes.data(), static_cast<std::streamsize>(file.first_bytes.size()))) {
    return absl::NotFoundError(absl::StrCat(path, ": can't be read"));
  }
  absl::StatusOr<v1::ElfImage> image = ParseElf(file.first_bytes, file.size_bytes, layout);
  if (!image.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", image.status().message()));
  file.image = *std::move(image);
  file.image.set_path("/bin/" + std::filesystem::path(path).filename().string());
  return file;
}

}  // namespace mmlab
