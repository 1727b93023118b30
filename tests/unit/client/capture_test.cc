#include "client/capture.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace mmlab {
namespace {

namespace fs = std::filesystem;

constexpr char kVersion[] = "Linux version 6.1.0-50-686 (a@b) (gcc-12 (Debian 12.2.0) 12.2.0, GNU ld 2.40) #1 SMP Debian 6.1.176-1\n";
constexpr char kDmesg[] =
    "<6>[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\n"
    "<6>[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x0000000003fdcfff] usable\n"
    "<6>[    0.000000] BIOS-e820: [mem 0x0000000003fdd000-0x0000000003ffffff] ACPI NVS\n"
    "<6>[    0.020757] RAMDISK: [mem 0x03ed8000-0x03fcffff]\n"
    "<6>[    0.029030] Move RAMDISK from [mem 0x03ed8000-0x03fcf663] to [mem 0x36b06000-0x36bfd663]\n"
    "<6>[    0.131224] Memory: 1K/2K available\n";

class CaptureTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::create_directories(root_);
    Write("version", kVersion);
    Write("dmesg", kDmesg);
    Write("iomem", "00100000-03fdcfff : System RAM\n");
    Write("cmdline", "console=ttyS0 quiet \n");
    Write("cpuinfo", "processor\t: 0\nmodel\t: 1\n\nprocessor\t: 1\n");
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const char* name, const std::string& text) { std::ofstream(root_ / name) << text; }
  absl::StatusOr<v1::MachineSpec> Spec() { return SpecFromCapture(root_.string()); }

  fs::path root_;
};

TEST_F(CaptureTest, TakesWhatFirmwareLoaderAndCommandLineSay) {
  const auto spec = Spec();
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->layout(), v1::LAYOUT_X86_32);
  EXPECT_EQ(spec->cpus(), 2);
  EXPECT_EQ(spec->command_line(), "console=ttyS0 quiet ");
  EXPECT_EQ(spec->kernel().release(), "6.1.0-50-686");
  EXPECT_EQ(spec->kernel().compiler(), "gcc-12 (Debian 12.2.0) 12.2.0, GNU ld 2.40");
  ASSERT_EQ(spec->firmware_ranges_size(), 3);
  EXPECT_EQ(spec->firmware_ranges(2).type(), v1::FirmwareRange::TYPE_NVS);
  EXPECT_EQ(spec->firmware_ranges(1).end_address(), 0x3fdd000u);
  EXPECT_EQ(spec->initramfs().start_address(), 0x3ed8000u);
  EXPECT_EQ(spec->initramfs().end_address(), 0x3fcf664u);
}

TEST_F(CaptureTest, PrefersTheFirmwareTable) {
  Write("firmware_memmap.tsv", "0x0\t0x9fbff\tSystem RAM\n0x100000\t0x7ffffff\tSystem RAM\n");
  const auto spec = Spec();
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_EQ(spec->firmware_ranges_size(), 2);
  EXPECT_EQ(spec->firmware_ranges(1).end_address(), 0x8000000u);
}

TEST_F(CaptureTest, TellsLayoutsByTheKernelsName) {
  Write("version", "Linux version 6.1.0-50-686-pae (a) (b) #1\n");
  EXPECT_EQ(Spec()->layout(), v1::LAYOUT_X86_32_PAE);
  Write("version", "Linux version 6.1.0-50-arm64 (a) (b) #1\n");
  Write("dmesg", "[    0.0]   node   0: [mem 0x0000000040000000-0x000000007fffffff]\n");
  const auto spec = Spec();
  EXPECT_EQ(spec->layout(), v1::LAYOUT_ARM64);
  ASSERT_EQ(spec->firmware_ranges_size(), 1);
  EXPECT_EQ(spec->firmware_ranges(0).end_address(), 0x80000000u);
}

TEST_F(CaptureTest, NamesWhatIsWrong) {
  Write("firmware_memmap.tsv", "0x0\t0x9fbff\n");
  EXPECT_EQ(Spec().status().message(), "firmware_memmap.tsv: line 1: must be START, LAST and TYPE, separated by tabs");
  Write("firmware_memmap.tsv", "0x0\t0x9fbff\tcheese\n");
  EXPECT_EQ(Spec().status().message(), "firmware_memmap.tsv: line 1: unknown type 'cheese'");
  Write("version", "cheese\n");
  EXPECT_EQ(Spec().status().code(), absl::StatusCode::kInvalidArgument);
  fs::remove(root_ / "iomem");
  EXPECT_EQ(Spec().status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SpecFromCapture("/nowhere").status().code(), absl::StatusCode::kNotFound);
}

TEST(CaptureFileNameTest, IsThatOfACapture) {
  EXPECT_EQ(CaptureFileName("zoneinfo"), "zoneinfo");
  EXPECT_EQ(CaptureFileName("sys/vm/swappiness"), "sys_vm/swappiness");
  EXPECT_EQ(CaptureFileName("sys/kernel/osrelease"), "sys_kernel_osrelease");
}

TEST(AddFirmwareRangesTest, TakesLogsAndTables) {
  v1::MachineSpec spec;
  spec.set_layout(v1::LAYOUT_X86_32);
  ASSERT_TRUE(AddFirmwareRanges(kDmesg, spec).ok());
  ASSERT_EQ(spec.firmware_ranges_size(), 3);
  EXPECT_EQ(spec.firmware_ranges(2).type(), v1::FirmwareRange::TYPE_NVS);
  EXPECT_FALSE(spec.has_initramfs());
  v1::MachineSpec table;
  ASSERT_TRUE(AddFirmwareRanges("0x0\t0x9fbff\tSystem RAM\n", table).ok());
  EXPECT_EQ(table.firmware_ranges(0).end_address(), 0x9fc00u);
  v1::MachineSpec banks;
  banks.set_layout(v1::LAYOUT_ARM64);
  ASSERT_TRUE(AddFirmwareRanges("[    0.000000]   node   0: [mem 0x0000000040000000-0x0000000047ffffff]\n", banks).ok());
  EXPECT_EQ(banks.firmware_ranges(0).start_address(), 0x40000000u);
  EXPECT_FALSE(AddFirmwareRanges("[mem 0x0-0x1] of something else", spec).ok());
  EXPECT_FALSE(AddFirmwareRanges("nonsense", spec).ok());
}

}  // namespace
}  // namespace mmlab
