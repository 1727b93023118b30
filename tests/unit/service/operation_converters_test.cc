#include "server/service/operation_converters.h"

#include <functional>
#include <set>
#include <string>

#include "google/protobuf/descriptor.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "server/host/host.h"

namespace mmlab {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Sets every number of a message to something that no default is, different for each field.
void FillNumbers(Message& message) {
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    if (field->is_repeated()) continue;
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        reflection.SetInt32(&message, field, 100 + i);
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        reflection.SetInt64(&message, field, 1000 + i);
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        reflection.SetUInt32(&message, field, 0x80000000u + i);
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        reflection.SetUInt64(&message, field, 0xf000000000000000 + i);
        break;
      default:
        break;
    }
  }
}

TEST(OperationListTest, NamesEveryMemberOfOperation) {
  std::set<std::string> listed;
#define MMLAB_NAME(Name, field) listed.insert(#field);
  MMLAB_OPERATIONS(MMLAB_NAME)
#undef MMLAB_NAME
  const auto* oneof = v1::Operation::descriptor()->oneof_decl(0);
  EXPECT_EQ(static_cast<int>(listed.size()), oneof->field_count());
  for (int i = 0; i < oneof->field_count(); ++i) EXPECT_TRUE(listed.contains(oneof->field(i)->name())) << oneof->field(i)->name();
  EXPECT_EQ(listed.size(), kOperationKinds);
  for (const absl::string_view name : OperationNames()) EXPECT_TRUE(listed.contains(std::string(name))) << name;
}

TEST(ToNativeTest, CarriesTheNumbersOfSystemCalls) {
  v1::MmapRequest mmap;
  FillNumbers(mmap);
  const op::Mmap native = ToNative(mmap);
  EXPECT_EQ(native.pid.raw(), mmap.pid());
  EXPECT_EQ(native.address, mmap.address());
  EXPECT_EQ(native.length, mmap.length_bytes());
  EXPECT_EQ(native.prot, mmap.prot());
  EXPECT_EQ(native.flags, mmap.flags());
  EXPECT_EQ(native.fd, mmap.fd());
  EXPECT_EQ(native.offset, mmap.offset_bytes());

  v1::MremapRequest mremap;
  FillNumbers(mremap);
  const op::Mremap moved = ToNative(mremap);
  EXPECT_EQ(moved.old_address, mremap.old_address());
  EXPECT_EQ(moved.old_length, mremap.old_length_bytes());
  EXPECT_EQ(moved.new_length, mremap.new_length_bytes());
  EXPECT_EQ(moved.flags, mremap.flags());
  EXPECT_EQ(moved.new_address, mremap.new_address());

  v1::SetrlimitRequest limit;
  FillNumbers(limit);
  EXPECT_EQ(ToNative(limit).resource, limit.resource());
  EXPECT_EQ(ToNative(limit).current, limit.current_bytes());
  EXPECT_EQ(ToNative(limit).maximum, limit.maximum_bytes());

  v1::PreadRequest pread;
  FillNumbers(pread);
  EXPECT_EQ(ToNative(pread).fd, pread.fd());
  EXPECT_EQ(ToNative(pread).address, pread.address());
  EXPECT_EQ(ToNative(pread).length, pread.length_bytes());
  EXPECT_EQ(ToNative(pread).offset, pread.offset_bytes());

  v1::ShmatRequest shmat;
  FillNumbers(shmat);
  EXPECT_EQ(ToNative(shmat).shm_id, shmat.shm_id());
  EXPECT_EQ(ToNative(shmat).address, shmat.address());
  EXPECT_EQ(ToNative(shmat).flags, shmat.flags());

  v1::AccessMemoryRequest access;
  FillNumbers(access);
  access.set_kind(v1::ACCESS_KIND_TOUCH_WRITE);
  access.set_data("bytes");
  const AccessRequest touched = ToNative(access).access;
  EXPECT_EQ(touched.kind, AccessKind::kTouchWrite);
  EXPECT_EQ(touched.address, access.address());
  EXPECT_EQ(touched.length, access.length_bytes());
  EXPECT_EQ(touched.stride, access.stride_bytes());
  EXPECT_EQ(touched.value, access.value());
  EXPECT_EQ(touched.data, "bytes");
}

TEST(ToNativeTest, CarriesImages) {
  v1::ExecRequest exec;
  exec.mutable_image()->set_path("/bin/a");
  exec.mutable_image()->set_entry_address(5);
  exec.mutable_image()->set_position_independent(true);
  v1::ProgramHeader* header = exec.mutable_image()->add_program_headers();
  FillNumbers(*header);
  header->set_type(v1::ProgramHeader::TYPE_GNU_STACK);
  exec.add_arguments("");
  exec.add_environment("A=1");
  op::Exec native = ToNative(exec);
  EXPECT_FALSE(native.interpreter.has_value());
  EXPECT_EQ(native.image.path, "/bin/a");
  EXPECT_TRUE(native.image.position_independent);
  ASSERT_EQ(native.image.program_headers.size(), 1u);
  EXPECT_EQ(native.image.program_headers[0].type, ProgramHeader::Type::kGnuStack);
  EXPECT_EQ(native.image.program_headers[0].vaddr, header->virtual_address());
  EXPECT_EQ(native.image.program_headers[0].align, header->align_bytes());
  EXPECT_EQ(native.arguments, std::vector<std::string>{""});
  EXPECT_EQ(native.environment, std::vector<std::string>{"A=1"});
  exec.mutable_interpreter()->set_path("/lib/ld.so");
  EXPECT_EQ(ToNative(exec).interpreter->path, "/lib/ld.so");
}

TEST(ToNativeTest, TranslatesWhatHasTwoSpellings) {
  v1::WriteSysctlRequest sysctl;
  sysctl.set_sysctl("vm/overcommit_memory");
  EXPECT_EQ(ToNative(sysctl).name, "vm.overcommit_memory");
  v1::OpenRequest open;
  EXPECT_EQ(ToNative(open).wished_fd, -1);
  open.set_wished_fd(9);
  EXPECT_EQ(ToNative(open).wished_fd, 9);
  EXPECT_EQ(ToNative(v1::AllocPagesRequest()).gfp, op::GfpClass::kKernel);
  v1::CreateFileRequest file;
  EXPECT_EQ(ToNative(file).file_system, op::FileSystem::kTmpfs);
  file.set_file_system(v1::FILE_SYSTEM_EXT4);
  EXPECT_EQ(ToNative(file).file_system, op::FileSystem::kExt4);
}

TEST(ToNativeTest, EveryMemberBecomesItsOwnKind) {
  std::set<size_t> kinds;
#define MMLAB_TRY_ONE(Name, field)                         \
  {                                                        \
    v1::Operation operation;                               \
    operation.mutable_##field()->set_explain(true);        \
    const Operation native = ToNative(operation);          \
    EXPECT_STREQ(OperationName(native), #field);           \
    EXPECT_TRUE(std::holds_alternative<op::Name>(native)); \
    EXPECT_TRUE(WantsExplanation(operation));              \
    kinds.insert(native.index());                          \
  }
  MMLAB_OPERATIONS(MMLAB_TRY_ONE)
#undef MMLAB_TRY_ONE
  EXPECT_EQ(kinds.size(), kOperationKinds);
}

// What CheckOperation says of a member of a batch; "" when it is good.
struct CheckCase {
  const char* name;
  std::function<void(v1::Operation&)> make;
  const char* field;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};
class CheckOperationTest : public testing::TestWithParam<CheckCase> {};

TEST_P(CheckOperationTest, NamesTheBadField) {
  v1::Operation operation;
  GetParam().make(operation);
  const absl::Status status = CheckOperation(operation, /*cpus=*/2);
  if (GetParam().field[0] == '\0') {
    EXPECT_TRUE(status.ok()) << status;
    return;
  }
  EXPECT_EQ(status.code(), GetParam().code) << status;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  ASSERT_TRUE(payload.has_value()) << status;
  google::rpc::BadRequest bad;
  ASSERT_TRUE(bad.ParseFromString(std::string(*payload)));
  EXPECT_EQ(bad.field_violations(0).field(), GetParam().field);
}

constexpr auto kOutOfRange = absl::StatusCode::kOutOfRange;
v1::AccessMemoryRequest* Access(v1::Operation& o, v1::AccessKind kind, uint64_t length) {
  o.mutable_access_memory()->set_kind(kind);
  o.mutable_access_memory()->set_length_bytes(length);
  return o.mutable_access_memory();
}
v1::ElfImage* Image(v1::Operation& o) {
  o.mutable_exec()->mutable_image()->set_path("/a");
  return o.mutable_exec()->mutable_image();
}
v1::CreateFileRequest* File(v1::Operation& o, const std::string& path) {
  o.mutable_create_file()->set_path(path);
  return o.mutable_create_file();
}

INSTANTIATE_TEST_SUITE_P(
    Common, CheckOperationTest,
    testing::Values(CheckCase{"NotSet", [](auto&) {}, "operation"},
                    CheckCase{"AnyNumbersPass", [](auto& o) { FillNumbers(*o.mutable_mmap()); }, ""},
                    CheckCase{"MachineInBatch", [](auto& o) { o.mutable_mmap()->set_machine("machines/a"); }, "mmap.machine"},
                    CheckCase{"RequestIdInBatch", [](auto& o) { o.mutable_brk()->set_request_id("x"); }, "brk.request_id"},
                    CheckCase{"LastCpu", [](auto& o) { o.mutable_switch_to()->set_cpu(1); }, ""},
                    CheckCase{"CpuTooHigh", [](auto& o) { o.mutable_switch_to()->set_cpu(2); }, "switch_to.cpu"},
                    CheckCase{"CpuNegative", [](auto& o) { o.mutable_free_pages()->set_cpu(-1); }, "free_pages.cpu"},
                    CheckCase{"AllocCpuTooHigh", [](auto& o) { o.mutable_alloc_pages()->set_cpu(64); }, "alloc_pages.cpu"}),
    [](const auto& tested) { return tested.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Process, CheckOperationTest,
    testing::Values(
        CheckCase{"CommNewline", [](auto& o) { o.mutable_create_process()->set_comm("a\n"); }, "create_process.comm"},
        CheckCase{"CommUtf8", [](auto& o) { o.mutable_create_process()->set_comm("\xc3\xa4"); }, "create_process.comm"},
        CheckCase{"CommLong", [](auto& o) { o.mutable_create_process()->set_comm(std::string(100, 'a')); }, ""},
        CheckCase{"NoImage", [](auto& o) { o.mutable_exec(); }, "exec.image.path"},
        CheckCase{"ImagePathNul", [](auto& o) { Image(o)->set_path(std::string("a\0b", 3)); }, "exec.image.path"},
        CheckCase{"HeadersMost",
                  [](auto& o) {
                    for (int i = 0; i < 128; ++i) Image(o)->add_program_headers();
                  },
                  ""},
        CheckCase{"HeadersTooMany",
                  [](auto& o) {
                    for (int i = 0; i < 129; ++i) Image(o)->add_program_headers();
                  },
                  "exec.image.program_headers"},
        CheckCase{"HeaderType", [](auto& o) { Image(o)->add_program_headers()->set_type(static_cast<v1::ProgramHeader::Type>(77)); },
                  "exec.image.program_headers[0].type"},
        CheckCase{"InterpreterWithoutPath",
                  [](auto& o) {
                    Image(o);
                    o.mutable_exec()->mutable_interpreter();
                  },
                  "exec.interpreter.path"},
        CheckCase{"ArgumentNul",
                  [](auto& o) {
                    Image(o);
                    o.mutable_exec()->add_arguments(std::string(1, '\0'));
                  },
                  "exec.arguments[0]"},
        CheckCase{"EnvironmentNul",
                  [](auto& o) {
                    Image(o);
                    o.mutable_exec()->add_environment(std::string(1, '\0'));
                  },
                  "exec.environment[0]"},
        CheckCase{"MincoreMost", [](auto& o) { o.mutable_mincore()->set_length_bytes(1 << 30); }, ""},
        CheckCase{"MincoreTooMuch", [](auto& o) { o.mutable_mincore()->set_length_bytes((1 << 30) + 1); }, "mincore.length_bytes",
                  kOutOfRange},
        CheckCase{"VmaNameNul", [](auto& o) { o.mutable_set_vma_name()->set_vma_name(std::string(1, '\0')); }, "set_vma_name.vma_name"}),
    [](const auto& tested) { return tested.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Access, CheckOperationTest,
    testing::Values(
        CheckCase{"KindNotSet", [](auto& o) { o.mutable_access_memory(); }, "access_memory.kind"},
        CheckCase{"KindUnknown", [](auto& o) { Access(o, static_cast<v1::AccessKind>(99), 0); }, "access_memory.kind"},
        CheckCase{"Load8", [](auto& o) { Access(o, v1::ACCESS_KIND_LOAD, 8); }, ""},
        CheckCase{"Load3", [](auto& o) { Access(o, v1::ACCESS_KIND_LOAD, 3); }, "access_memory.length_bytes"},
        CheckCase{"Store0", [](auto& o) { Access(o, v1::ACCESS_KIND_STORE, 0); }, "access_memory.length_bytes"},
        CheckCase{"TouchMost", [](auto& o) { Access(o, v1::ACCESS_KIND_TOUCH_READ, uint64_t{1} << 36); }, ""},
        CheckCase{"TouchTooMany", [](auto& o) { Access(o, v1::ACCESS_KIND_TOUCH_READ, ~uint64_t{0}); }, "access_memory.length_bytes",
                  kOutOfRange},
        CheckCase{"TouchEveryByteTooMany", [](auto& o) { Access(o, v1::ACCESS_KIND_TOUCH_READ, 1 << 25)->set_stride_bytes(1); },
                  "access_memory.length_bytes", kOutOfRange},
        CheckCase{"TouchNotAByte", [](auto& o) { Access(o, v1::ACCESS_KIND_TOUCH_WRITE, 1)->set_value(256); }, "access_memory.value"},
        CheckCase{"HashTooMuch", [](auto& o) { Access(o, v1::ACCESS_KIND_HASH, (1 << 30) + 1); }, "access_memory.length_bytes",
                  kOutOfRange},
        CheckCase{"ReadMost", [](auto& o) { Access(o, v1::ACCESS_KIND_READ_BYTES, 1 << 20); }, ""},
        CheckCase{"ReadTooMuch", [](auto& o) { Access(o, v1::ACCESS_KIND_READ_BYTES, (1 << 20) + 1); }, "access_memory.length_bytes",
                  kOutOfRange},
        CheckCase{"WriteTooMuch", [](auto& o) { Access(o, v1::ACCESS_KIND_WRITE_BYTES, 0)->set_data(std::string((1 << 20) + 1, 'x')); },
                  "access_memory.data", kOutOfRange}),
    [](const auto& tested) { return tested.param.name; });

INSTANTIATE_TEST_SUITE_P(
    FilesAndMachine, CheckOperationTest,
    testing::Values(
        CheckCase{"FileWithoutPath", [](auto& o) { o.mutable_create_file(); }, "create_file.path"},
        CheckCase{"FileRelative", [](auto& o) { File(o, "a"); }, "create_file.path"},
        CheckCase{"FileLongestPath", [](auto& o) { File(o, "/" + std::string(4094, 'a')); }, ""},
        CheckCase{"FilePathTooLong", [](auto& o) { File(o, "/" + std::string(4095, 'a')); }, "create_file.path"},
        CheckCase{"FileSystemUnknown", [](auto& o) { File(o, "/a")->set_file_system(static_cast<v1::FileSystem>(9)); },
                  "create_file.file_system"},
        CheckCase{"FileSmallerThanContent", [](auto& o) { File(o, "/a")->set_content("x"); }, "create_file.size_bytes"},
        CheckCase{"FileContentTooLong", [](auto& o) { File(o, "/a")->set_content(std::string((1 << 20) + 1, 'x')); }, "create_file.content",
                  kOutOfRange},
        CheckCase{"OpenPathNul", [](auto& o) { o.mutable_open()->set_path(std::string(1, '\0')); }, "open.path"},
        CheckCase{"MemfdNameNul", [](auto& o) { o.mutable_memfd_create()->set_memfd_name(std::string(1, '\0')); },
                  "memfd_create.memfd_name"},
        CheckCase{"GfpUnknown", [](auto& o) { o.mutable_alloc_pages()->set_gfp(static_cast<v1::GfpClass>(99)); }, "alloc_pages.gfp"},
        CheckCase{"OrderNegative", [](auto& o) { o.mutable_alloc_pages()->set_order(-1); }, "alloc_pages.order"},
        CheckCase{"OrderTooHighIsTheKernels", [](auto& o) { o.mutable_alloc_pages()->set_order(11); }, ""},
        CheckCase{"FreeOrderNegative", [](auto& o) { o.mutable_free_pages()->set_order(-1); }, "free_pages.order"},
        CheckCase{"SysctlNotSet", [](auto& o) { o.mutable_write_sysctl(); }, "write_sysctl.sysctl"},
        CheckCase{"SysctlTooLong", [](auto& o) { o.mutable_write_sysctl()->set_sysctl(std::string(256, 'a')); }, "write_sysctl.sysctl"},
        CheckCase{"SysctlValueTooLong",
                  [](auto& o) {
                    o.mutable_write_sysctl()->set_sysctl("a");
                    o.mutable_write_sysctl()->set_value(std::string(4096, '1'));
                  },
                  "write_sysctl.value"},
        CheckCase{"TimeNegative", [](auto& o) { o.mutable_advance_time()->set_nanoseconds(-1); }, "advance_time.nanoseconds"},
        CheckCase{"TimeTooFar", [](auto& o) { o.mutable_advance_time()->set_nanoseconds(1'000'000'000'000'000'001); },
                  "advance_time.nanoseconds"}),
    [](const auto& tested) { return tested.param.name; });

TEST(IsShortTest, KeepsLongWorkOffTheNetworksThreads) {
  v1::AccessMemoryRequest touch;
  touch.set_kind(v1::ACCESS_KIND_TOUCH_WRITE);
  touch.set_length_bytes(4096);
  EXPECT_TRUE(IsShort(touch));
  touch.set_length_bytes(uint64_t{1} << 30);
  EXPECT_FALSE(IsShort(touch));
  touch.set_length_bytes(100000);
  touch.set_stride_bytes(1);
  EXPECT_FALSE(IsShort(touch));
  EXPECT_TRUE(IsShort(v1::BrkRequest()));
  EXPECT_FALSE(IsShort(v1::ForkRequest()));
  v1::MunmapRequest munmap;
  EXPECT_TRUE(IsShort(munmap));
  munmap.set_length_bytes(~uint64_t{0});
  EXPECT_FALSE(IsShort(munmap));
}

}  // namespace
}  // namespace mmlab
