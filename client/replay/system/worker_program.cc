#include "client/replay/system/worker_program.h"

#include <utility>
#include <vector>

#include "server/base/status_macros.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;
constexpr char kInitPath[] = "/init";
constexpr uint32_t kRead = 4, kWrite = 2, kExecute = 1;  // PF_*

struct Segment {
  uint64_t address, offset, file_bytes, memory_bytes;
  uint32_t flags;
};

// Its segments as /proc/PID/maps shows them, and what its start-up did: made the first pages of its data read-only, moved the break,
// touched its tables.
struct Program {
  std::vector<Segment> segments;
  uint64_t entry;
  uint64_t file_bytes;
  uint64_t relro, relro_bytes;
  uint64_t data, data_pages;  // Written, behind the read-only part.
  uint64_t bss, bss_pages;    // Touched of its tables.
  uint64_t text_pages;        // Read.
  uint64_t brk_bytes, brk_pages;
  uint64_t stack;
};

Program ProgramOf(v1::Layout layout) {
  if (layout == v1::LAYOUT_ARM64) {
    return {{{0x400000, 0, 0x9d000, 0x9d000, kRead | kExecute}, {0x4ac000, 0xac000, 0x7000, 0x936000, kRead | kWrite}},
            0x401000,
            0xb3000,
            0x4ac000,
            0x4000,
            0x4b0000,
            3,
            0x4b3000,
            800,
            110,
            0x22000,
            9,
            0xfffffffff000};
  }
  return {{{0x8048000, 0, 0x1000, 0x1000, kRead},
           {0x8049000, 0x1000, 0x95000, 0x95000, kRead | kExecute},
           {0x80de000, 0x96000, 0x3b000, 0x3b000, kRead},
           {0x8119000, 0xd0000, 0x5000, 0x92b000, kRead | kWrite}},
          0x8049000,
          0xd5000,
          0x8119000,
          0x3000,
          0x811c000,
          2,
          0x811e000,
          799,
          140,
          0x21000,
          9,
          0xbffff000};
}

v1::Operation Touch(int32_t pid, v1::AccessKind kind, uint64_t address, uint64_t pages) {
  v1::Operation operation;
  v1::AccessMemoryRequest& access = *operation.mutable_access_memory();
  access.set_pid(pid);
  access.set_kind(kind);
  access.set_address(address);
  access.set_length_bytes(pages * kPage);
  access.set_stride_bytes(kPage);
  access.set_value(1);
  return operation;
}

absl::Status Exec(Stage& stage, const Program& program, int32_t pid) {
  v1::Operation file;
  file.mutable_create_file()->set_path(kInitPath);
  file.mutable_create_file()->set_file_system(v1::FILE_SYSTEM_TMPFS);
  file.mutable_create_file()->set_content(std::string(program.file_bytes, '\x1f'));
  file.mutable_create_file()->set_size_bytes(program.file_bytes);
  MMLAB_RETURN_IF_ERROR(stage.MustApply(file).status());
  v1::Operation operation;
  v1::ExecRequest& exec = *operation.mutable_exec();
  exec.set_pid(pid);
  exec.add_arguments(kInitPath);
  exec.mutable_image()->set_path(kInitPath);
  exec.mutable_image()->set_entry_address(program.entry);
  for (const Segment& segment : program.segments) {
    v1::ProgramHeader& header = *exec.mutable_image()->add_program_headers();
    header.set_type(v1::ProgramHeader::TYPE_LOAD);
    header.set_offset_bytes(segment.offset);
    header.set_virtual_address(segment.address);
    header.set_file_size_bytes(segment.file_bytes);
    header.set_memory_size_bytes(segment.memory_bytes);
    header.set_align_bytes(kPage);
    header.set_flags(segment.flags);
  }
  v1::ProgramHeader& stack = *exec.mutable_image()->add_program_headers();
  stack.set_type(v1::ProgramHeader::TYPE_GNU_STACK);
  stack.set_flags(kRead | kWrite);
  return stage.MustApply(operation).status();
}

// A page that was written and may not be used any more: the topmost mapping of every worker.
absl::Status MakeForbiddenPage(Stage& stage, int32_t pid) {
  v1::Operation operation;
  v1::MmapRequest& map = *operation.mutable_mmap();
  map.set_pid(pid);
  map.set_length_bytes(kPage);
  map.set_prot(3);      // PROT_READ | PROT_WRITE
  map.set_flags(0x22);  // MAP_PRIVATE | MAP_ANONYMOUS
  map.set_fd(-1);
  MMLAB_ASSIGN_OR_RETURN(const v1::Outcome mapped, stage.MustApply(operation));
  MMLAB_RETURN_IF_ERROR(stage.MustApply(Touch(pid, v1::ACCESS_KIND_TOUCH_WRITE, mapped.value(), 1)).status());
  v1::Operation protect;
  protect.mutable_mprotect()->set_pid(pid);
  protect.mutable_mprotect()->set_address(mapped.value());
  protect.mutable_mprotect()->set_length_bytes(kPage);
  protect.mutable_mprotect()->set_prot(0);  // PROT_NONE
  return stage.MustApply(protect).status();
}

}  // namespace

absl::StatusOr<int32_t> StartWorkerProgram(Stage& stage, v1::Layout layout) {
  const Program program = ProgramOf(layout);
  v1::Operation create;
  create.mutable_create_process()->set_comm("init");
  MMLAB_ASSIGN_OR_RETURN(const v1::Outcome created, stage.MustApply(create));
  const auto pid = static_cast<int32_t>(created.value());
  MMLAB_RETURN_IF_ERROR(Exec(stage, program, pid));

  std::vector<v1::Operation> start = {
      Touch(pid, v1::ACCESS_KIND_TOUCH_READ, program.entry, program.text_pages),
      Touch(pid, v1::ACCESS_KIND_TOUCH_WRITE, program.relro, program.relro_bytes / kPage + program.data_pages),
      Touch(pid, v1::ACCESS_KIND_TOUCH_WRITE, program.bss, program.bss_pages),
      Touch(pid, v1::ACCESS_KIND_TOUCH_WRITE, program.stack - kPage, 2),
  };
  v1::Operation protect;
  protect.mutable_mprotect()->set_pid(pid);
  protect.mutable_mprotect()->set_address(program.relro);
  protect.mutable_mprotect()->set_length_bytes(program.relro_bytes);
  protect.mutable_mprotect()->set_prot(1);  // PROT_READ
  start.push_back(protect);
  for (const v1::Operation& operation : start) MMLAB_RETURN_IF_ERROR(stage.MustApply(operation).status());
  v1::Operation brk;
  brk.mutable_brk()->set_pid(pid);
  MMLAB_ASSIGN_OR_RETURN(const v1::Outcome now, stage.MustApply(brk));  // brk(0) tells where it is.
  brk.mutable_brk()->set_address(now.value() + program.brk_bytes);
  MMLAB_RETURN_IF_ERROR(stage.MustApply(brk).status());
  MMLAB_RETURN_IF_ERROR(stage.MustApply(Touch(pid, v1::ACCESS_KIND_TOUCH_WRITE, now.value(), program.brk_pages)).status());
  MMLAB_RETURN_IF_ERROR(MakeForbiddenPage(stage, pid));
  return pid;
}

absl::Status RunRecorder(Stage& stage, v1::Layout layout, int32_t pid) {
  const Program program = ProgramOf(layout);
  const std::pair<uint64_t, uint64_t> used[] = {
      {program.entry, 1}, {program.data, program.data_pages}, {program.bss, 3}, {program.stack, 1}};
  for (const auto& [address, pages] : used) {
    MMLAB_RETURN_IF_ERROR(stage.Apply(Touch(pid, v1::ACCESS_KIND_TOUCH_READ, address, pages)).status());
  }
  return absl::OkStatus();
}

uint64_t WorkerBuffer(v1::Layout layout) { return ProgramOf(layout).bss; }

absl::StatusOr<std::optional<int32_t>> ForkWorker(Stage& stage, v1::Layout layout, int32_t parent) {
  const Program program = ProgramOf(layout);
  v1::Operation fork;
  fork.mutable_fork()->set_pid(parent);
  MMLAB_ASSIGN_OR_RETURN(const v1::Outcome forked, stage.Apply(fork));
  if (forked.error_number() != 0) return std::nullopt;
  const auto child = static_cast<int32_t>(forked.value());
  for (const v1::Operation& operation :
       {Touch(child, v1::ACCESS_KIND_TOUCH_READ, program.entry, 1),
        Touch(child, v1::ACCESS_KIND_TOUCH_WRITE, program.data, program.data_pages),
        Touch(child, v1::ACCESS_KIND_TOUCH_WRITE, program.bss, 3), Touch(child, v1::ACCESS_KIND_TOUCH_WRITE, program.stack, 1)}) {
    MMLAB_ASSIGN_OR_RETURN(const v1::Outcome touched, stage.Apply(operation));
    if (touched.has_signal()) break;
  }
  return child;
}

}  // namespace mmlab
