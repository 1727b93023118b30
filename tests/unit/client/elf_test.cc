#include "client/elf.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>

namespace mmlab {
namespace {

using testing::HasSubstr;

constexpr uint64_t kFileSize = 0x3000;

// A small ELF file: header, two program headers, zeros.
template <typename Header, typename Segment>
std::string SmallElf(unsigned char elf_class, const std::function<void(Header&, Segment*)>& change) {
  Header header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = elf_class;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_EXEC;
  header.e_machine = elf_class == ELFCLASS64 ? EM_AARCH64 : EM_386;
  header.e_entry = 0x8048100;
  header.e_phoff = sizeof(Header);
  header.e_phentsize = sizeof(Segment);
  header.e_phnum = 2;
  Segment segments[2] = {};
  segments[0].p_type = PT_LOAD;
  segments[0].p_vaddr = 0x8048000;
  segments[0].p_offset = 0x1000;
  segments[0].p_filesz = 0x1800;
  segments[0].p_memsz = 0x5000;
  segments[0].p_flags = PF_R | PF_W;
  segments[0].p_align = 0x1000;
  segments[1].p_type = PT_GNU_STACK;
  segments[1].p_flags = PF_R | PF_W;
  change(header, segments);
  std::string bytes(kFileSize, '\0');
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(bytes.data() + sizeof header, segments, sizeof segments);
  return bytes;
}

std::string Elf32(const std::function<void(Elf32_Ehdr&, Elf32_Phdr*)>& change) {
  return SmallElf<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, change);
}
std::string Elf64(const std::function<void(Elf64_Ehdr&, Elf64_Phdr*)>& change) {
  return SmallElf<Elf64_Ehdr, Elf64_Phdr>(ELFCLASS64, change);
}

// As a program of the layout that its class is of.
absl::StatusOr<v1::ElfImage> Parse(const std::string& bytes) {
  const bool wide = bytes.size() > EI_CLASS && bytes[EI_CLASS] == ELFCLASS64;
  return ParseElf(bytes, bytes.size(), wide ? v1::LAYOUT_ARM64 : v1::LAYOUT_X86_32);
}

TEST(ElfTest, ReadsBothClasses) {
  for (const std::string& bytes : {Elf32([](auto&, auto*) {}), Elf64([](auto&, auto*) {})}) {
    const absl::StatusOr<v1::ElfImage> image = Parse(bytes);
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_EQ(image->entry_address(), 0x8048100u);
    EXPECT_FALSE(image->position_independent());
    ASSERT_EQ(image->program_headers_size(), 2);
    EXPECT_EQ(image->program_headers(0).ShortDebugString(),
              "type: TYPE_LOAD offset_bytes: 4096 virtual_address: 134512640 file_size_bytes: 6144 memory_size_bytes: 20480 flags: 6 "
              "align_bytes: 4096");
    EXPECT_EQ(image->program_headers(1).type(), v1::ProgramHeader::TYPE_GNU_STACK);
  }
}

struct HostileCase {
  const char* name;
  std::string bytes;
  const char* why;
};

class HostileElfTest : public testing::TestWithParam<HostileCase> {};

TEST_P(HostileElfTest, IsRefusedWithItsReason) {
  const absl::StatusOr<v1::ElfImage> image = Parse(GetParam().bytes);
  ASSERT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(image.status().message()), HasSubstr(GetParam().why));
}

INSTANTIATE_TEST_SUITE_P(
    Files, HostileElfTest,
    testing::Values(
        HostileCase{"Empty", "", "not an ELF file"},                       //
        HostileCase{"Text", "#!/bin/sh\nexec something\n", "not an ELF"},  //
        HostileCase{"MagicAlone",
                    "\x7f"
                    "ELF",
                    "not an ELF file"},
        HostileCase{"HeaderCutOff", Elf64([](auto&, auto*) {}).substr(0, 40), "shorter than an ELF header"},
        HostileCase{"BigEndian", Elf32([](auto& h, auto*) { h.e_ident[EI_DATA] = ELFDATA2MSB; }), "not little-endian"},
        HostileCase{"NoClass", Elf32([](auto& h, auto*) { h.e_ident[EI_CLASS] = 3; }), "not a 32-bit ELF file"},
        HostileCase{"OfTheHost", Elf64([](auto& h, auto*) { h.e_machine = EM_X86_64; }),
                    "for another kind of computer (e_machine 62, not 183)"},
        HostileCase{"ObjectFile", Elf64([](auto& h, auto*) { h.e_type = ET_REL; }), "not an executable"},
        HostileCase{"OddHeaderSize", Elf64([](auto& h, auto*) { h.e_phentsize = 8; }), "program headers of a size"},
        HostileCase{"NoHeaders", Elf64([](auto& h, auto*) { h.e_phnum = 0; }), "has 0 program headers"},
        HostileCase{"TooManyHeaders", Elf64([](auto& h, auto*) { h.e_phnum = 0xffff; }), "has 65535 program headers"},
        HostileCase{"HeadersBehindTheEnd", Elf64([](auto& h, auto*) { h.e_phoff = kFileSize - 8; }), "outside the file"},
        HostileCase{"HeadersWrapAround", Elf64([](auto& h, auto*) { h.e_phoff = ~uint64_t{0} - 20; }), "outside the file"},
        HostileCase{"SegmentBehindTheEnd", Elf64([](auto&, auto* s) { s[0].p_offset = kFileSize + 1; }), "segment 0 lies outside"},
        HostileCase{"SegmentOverTheEnd", Elf64([](auto&, auto* s) { s[0].p_filesz = s[0].p_memsz = kFileSize; }), "segment 0 lies outside"},
        HostileCase{"SegmentWrapsAround", Elf64([](auto&, auto* s) { s[0].p_filesz = s[0].p_memsz = ~uint64_t{0}; }), "lies outside"},
        HostileCase{"MemoryBeyondTheLastAddress", Elf64([](auto&, auto* s) { s[0].p_memsz = ~uint64_t{0} - 0x8000000; }),
                    "beyond the last"},
        HostileCase{"MemoryBeyondTheLastAddressOf32Bits", Elf32([](auto&, auto* s) { s[0].p_memsz = 0xf8000000; }), "beyond the last"},
        HostileCase{"LargerInTheFile", Elf32([](auto&, auto* s) { s[0].p_memsz = 1; }), "larger in the file than in memory"}),
    [](const auto& tested) { return tested.param.name; });

TEST(ElfTest, Arm64MachinesRun32BitArm) {
  const std::string bytes = Elf32([](auto& h, auto*) { h.e_machine = EM_ARM; });
  const absl::StatusOr<v1::ElfImage> image = ParseElf(bytes, bytes.size(), v1::LAYOUT_ARM64);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->elf_machine(), uint32_t{EM_ARM});
}

// A program whose second header is PT_INTERP, with these bytes at offset 0x200.
absl::StatusOr<std::string> Interpreter(const std::string& name, uint64_t size, uint64_t offset = 0x200) {
  std::string bytes = Elf64([&](auto&, auto* s) {
    s[1].p_type = PT_INTERP;
    s[1].p_offset = offset;
    s[1].p_filesz = size;
  });
  bytes.replace(0x200, name.size(), name);
  const absl::StatusOr<v1::ElfImage> image = Parse(bytes);
  EXPECT_TRUE(image.ok()) << image.status();
  return InterpreterOf(*image, bytes);
}

TEST(ElfTest, ReadsTheInterpretersName) {
  EXPECT_EQ(*Interpreter("/lib/ld.so", 11), "/lib/ld.so");
  for (const auto& refused : {Interpreter("/lib/ld.so", 10), Interpreter("", 1), Interpreter("/", 5000), Interpreter("/", 2, kFileSize - 1),
                              Interpreter("/", 2, ~uint64_t{0})}) {
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ElfTest, SurvivesAnyBytes) {
  constexpr uint32_t kSeed = 20261122;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  const std::string good[] = {Elf32([](auto&, auto*) {}), Elf64([](auto&, auto*) {})};
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good[round % 2].substr(0, random() % 2 == 0 ? kFileSize : random() % 200);
    for (unsigned i = random() % 8; i > 0 && !bytes.empty(); --i) {
      bytes[random() % std::min<size_t>(bytes.size(), 180)] = static_cast<char>(random());
    }
    const absl::StatusOr<v1::ElfImage> image = Parse(bytes);
    if (!image.ok()) continue;
    for (const v1::ProgramHeader& header : image->program_headers()) {
      if (header.type() != v1::ProgramHeader::TYPE_LOAD) continue;
      ASSERT_LE(header.offset_bytes() + header.file_size_bytes(), bytes.size());
      ASSERT_LE(header.file_size_bytes(), header.memory_size_bytes());
    }
  }
}

TEST(ElfTest, RefusesTheOtherClass) {
  const std::string wide = Elf64([](auto&, auto*) {});
  const std::string narrow = Elf32([](auto&, auto*) {});
  EXPECT_EQ(ParseElf(wide, wide.size(), v1::LAYOUT_X86_32_PAE).status(), absl::InvalidArgumentError("not a 32-bit ELF file"));
  EXPECT_EQ(ParseElf(narrow, narrow.size(), v1::LAYOUT_ARM64).status(),
            absl::InvalidArgumentError("for another kind of computer (e_machine 3, not 40)"));
}

TEST(ElfTest, SaysWhichFileCannotBeRead) {
  EXPECT_EQ(ReadElf("/nonexistent/program", v1::LAYOUT_ARM64).status(), absl::NotFoundError("/nonexistent/program: no such file"));
  EXPECT_EQ(ReadElf("/tmp", v1::LAYOUT_ARM64).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace mmlab
