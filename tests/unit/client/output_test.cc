#include "client/cli/output.h"

#include <gtest/gtest.h>

#include "mmlab/v1/machine.pb.h"

namespace mmlab {
namespace {

TEST(TableTextTest, AlignsColumnsTwoSpacesApart) {
  EXPECT_EQ(TableText({"NAME", "FREE", "AGE"}, {{"lab1", "967Mi", "5s"}, {"a-longer-name", "1Gi", "3m"}}),
            "NAME           FREE   AGE\n"
            "lab1           967Mi  5s\n"
            "a-longer-name  1Gi    3m\n");
  EXPECT_EQ(TableText({"NAME", "AGE"}, {}), "NAME  AGE\n");
}

TEST(StructuredTextTest, WritesContractNamesAsJsonAndYaml) {
  v1::Zone zone;
  zone.set_name("DMA");
  zone.set_managed_pages(3976);
  zone.add_free_blocks(1);
  zone.add_free_blocks(0);
  EXPECT_EQ(JsonText(zone), "{\n \"name\": \"DMA\",\n \"managed_pages\": \"3976\",\n \"free_blocks\": [\n  \"1\",\n  \"0\"\n ]\n}\n");
  EXPECT_EQ(YamlText(zone), "name: DMA\nmanaged_pages: 3976\nfree_blocks:\n  - 1\n  - 0\n");
}

struct SizeCase {
  const char* text;
  std::optional<uint64_t> value;
};

TEST(ParseSizeTest, ReadsHexDecimalAndUnits) {
  for (const SizeCase& c :
       {SizeCase{"0", 0}, SizeCase{"4096", 4096}, SizeCase{"0x1000", 0x1000}, SizeCase{"64K", 65536}, SizeCase{"4G", uint64_t{4} << 30},
        SizeCase{"1T", uint64_t{1} << 40}, SizeCase{"0xffffffffffffffff", UINT64_MAX}, SizeCase{"18446744073709551615", UINT64_MAX},
        SizeCase{"", std::nullopt}, SizeCase{"K", std::nullopt}, SizeCase{"-1", std::nullopt}, SizeCase{"12Q", std::nullopt},
        SizeCase{"0x", std::nullopt}, SizeCase{"1.5G", std::nullopt}, SizeCase{"18446744073709551616", std::nullopt},
        SizeCase{"16777216T", std::nullopt}}) {
    EXPECT_EQ(ParseSize(c.text), c.value) << c.text;
  }
}

TEST(WordsTest, AmountsAndAges) {
  EXPECT_EQ(BytesText(0), "0");
  EXPECT_EQ(BytesText(4096), "4096");
  EXPECT_EQ(BytesText(int64_t{1} << 20), "1024Ki");
  EXPECT_EQ(BytesText(int64_t{64} << 20), "64Mi");
  EXPECT_EQ(BytesText(int64_t{64} << 30), "64Gi");
  EXPECT_EQ(AgeText(-3), "0s");
  EXPECT_EQ(AgeText(119), "119s");
  EXPECT_EQ(AgeText(121), "2m");
  EXPECT_EQ(AgeText(3 * 3600), "3h");
  EXPECT_EQ(AgeText(9 * 86400), "9d");
  EXPECT_EQ(HexText(0), "0x0");
  EXPECT_EQ(LastPart("machines/lab1"), "lab1");
  EXPECT_EQ(LastPart("lab1"), "lab1");
}

TEST(OutcomeTextTest, WritesEachValueInTheWordsOfItsKind) {
  v1::Outcome outcome;
  outcome.set_value(0x2a);
  EXPECT_EQ(OutcomeText("mmap", outcome), "0x2a\n");
  for (const char* verb : {"vmalloc", "vmap", "get_vm_area", "ioremap", "vm_map_ram", "kmap", "kmap_local", "get_free_pages"}) {
    EXPECT_EQ(OutcomeText(verb, outcome), "0x2a\n") << verb;
  }
  EXPECT_EQ(OutcomeText("fork", outcome), "pid 42\n");
  EXPECT_EQ(OutcomeText("memfd_create", outcome), "fd 42\n");
  EXPECT_EQ(OutcomeText("alloc_pages", outcome), "pfn 0x2a\n");
  EXPECT_EQ(OutcomeText("pread", outcome), "42\n");
}

TEST(OutcomeTextTest, WritesErrnosSignalsAndVectors) {
  v1::Outcome refused;
  refused.set_error_number(12);
  refused.set_error_name("ENOMEM");
  EXPECT_EQ(OutcomeText("mmap", refused), "-1 ENOMEM (errno 12)\n");

  v1::Outcome killed;
  killed.mutable_access()->set_done(2);
  killed.mutable_signal()->set_name("SIGSEGV");
  killed.mutable_signal()->set_code_name("SEGV_MAPERR");
  killed.mutable_signal()->set_address(0x1000);
  EXPECT_EQ(OutcomeText("access_memory", killed), "done=2 value=0x0 faults=0+0\nSIGSEGV (SEGV_MAPERR) at 0x1000\n");

  v1::Outcome vector;
  vector.set_data(std::string("\1\0\1", 3));
  EXPECT_EQ(OutcomeText("mincore", vector), "0\n101\n");
}

}  // namespace
}  // namespace mmlab
