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
constexpr uint64_t kMaxInterpreterPath = 4096;  // PATH_MAX

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

// What a PT_LOAD segment must not be; OK for others. `top` is the first address that the class does not have, less one.
template <typename Segment>
absl::Status CheckSegment(const Segment& segment, int index, uint64_t size_bytes, uint64_t top) {
  if (segment.p_type != PT_LOAD) return absl::OkStatus();
  if (segment.p_offset > size_bytes || segment.p_filesz > size_bytes - segment.p_offset) {
    return absl::InvalidArgumentError(absl::StrCat("segment ", index, " lies outside the file"));
  }
  if (segment.p_memsz < segment.p_filesz) {
    return absl::InvalidArgumentError(absl::StrCat("segment ", index, " is larger in the file than in memory"));
  }
  if (segment.p_memsz > top - segment.p_vaddr) {
    return absl::InvalidArgumentError(absl::StrCat("segment ", index, " reaches beyond the last address"));
  }
  return absl::OkStatus();
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
  image.set_elf_machine(header.e_machine);
  for (int i = 0; i < header.e_phnum; ++i) {
    Segment segment;
    const uint64_t offset = uint64_t{header.e_phoff} + static_cast<uint64_t>(i) * sizeof(Segment);
    if (offset < header.e_phoff || !ReadAt(bytes, offset, &segment))
      return absl::InvalidArgumentError("its program headers lie outside the file");
    MMLAB_RETURN_IF_ERROR(CheckSegment(segment, i, size_bytes, decltype(segment.p_vaddr)(-1)));
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
  const char elf_class = bytes[EI_CLASS];
  if (elf_class == ELFCLASS64 && arm64) return Parse<Elf64_Ehdr, Elf64_Phdr>(bytes, size_bytes, EM_AARCH64);
  if (elf_class == ELFCLASS32) return Parse<Elf32_Ehdr, Elf32_Phdr>(bytes, size_bytes, arm64 ? EM_ARM : EM_386);
  return absl::InvalidArgumentError(arm64 ? "neither a 32-bit nor a 64-bit ELF file" : "not a 32-bit ELF file");
}

absl::StatusOr<std::string> InterpreterOf(const v1::ElfImage& image, const std::string& bytes) {
  for (const v1::ProgramHeader& header : image.program_headers()) {
    if (header.type() != v1::ProgramHeader::TYPE_INTERP) continue;
    const uint64_t size = header.file_size_bytes();
    if (size < 2 || size > kMaxInterpreterPath) return absl::InvalidArgumentError("its interpreter's name is too short or too long");
    if (header.offset_bytes() > bytes.size() || size > bytes.size() - header.offset_bytes()) {
      return absl::InvalidArgumentError("its interpreter's name lies outside the file");
    }
    const std::string name = bytes.substr(header.offset_bytes(), size);
    if (name.back() != '\0') return absl::InvalidArgumentError("its interpreter's name does not end");
    return std::string(name.c_str());
  }
  return std::string();
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
  absl::StatusOr<std::string> interpreter = InterpreterOf(file.image, file.first_bytes);
  if (!interpreter.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", interpreter.status().message()));
  file.interpreter = *std::move(interpreter);
  file.image.set_path("/bin/" + std::filesystem::path(path).filename().string());
  return file;
}

}  // namespace mmlab
