#include <utility>

#include "absl/strings/str_cat.h"
#include "server/arch/layout.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/process/address_space.h"
#include "server/process/mm_call.h"
#include "server/process/processes.h"

// Descriptors and the checks of calls on them: fs/open.c, fs/read_write.c, mm/memfd.c.

namespace mmlab {
namespace {

constexpr uint64_t kMaxReadWrite = 0x7ffff000;    // MAX_RW_COUNT
constexpr uint64_t kExt4MaxSize = 0xffffffff000;  // s_maxbytes of ext4 with 4 KiB blocks.
constexpr uint64_t kMaxLfs32 = 0xffffffff000;     // MAX_LFS_FILESIZE of 32-bit kernels.
constexpr uint64_t kMaxSigned = uint64_t{1} << 63;
constexpr size_t kMaxMemfdName = 249;        // NAME_MAX less "memfd:".
constexpr uint32_t kMemfdFlags = 0x1 | 0x2;  // MFD_CLOEXEC, MFD_ALLOW_SEALING.
constexpr uint32_t kMemfdHugetlb = 0x4;
constexpr int kMemfdHugeShift = 26;
constexpr uint32_t kMemfdHugeMask = 0x3fu << kMemfdHugeShift;
constexpr char kNotOpen[] = "not an open descriptor";

uint64_t MaxSize(const Inode& inode, const Layout& layout) {
  if (inode.kind == FileKind::kBlockDevice) return inode.size;
  if (inode.kind == FileKind::kExt4) return kExt4MaxSize;
  return layout.word_bytes == 4 ? kMaxLfs32 : kMaxSigned - 1;
}

bool IsRegular(const Inode& inode) { return inode.kind != FileKind::kPipe && inode.kind != FileKind::kDevZero; }

}  // namespace

SysResult<uint64_t> Processes::InstallFile(Process& process, std::shared_ptr<OpenFile> file, int32_t wished_fd) {
  const uint64_t limit = process.rlimit(RlimitKind::kNofile).current;
  int32_t fd = wished_fd;
  if (fd <= 0) {
    fd = 3;
    while (process.files->contains(fd)) ++fd;
    if (static_cast<uint64_t>(fd) >= limit) return Refuse(Errno::kEMFILE, "RLIMIT_NOFILE descriptors are open");
  } else if (static_cast<uint64_t>(fd) >= limit) {
    return Refuse(Errno::kEBADF, "a descriptor beyond RLIMIT_NOFILE");
  }
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFileLookup, wished_fd > 0 ? "the descriptor was asked for" : "the lowest free descriptor, from 3 on")
        .Text("file", file->inode->path)
        .Number("fd", fd);
  }
  file->Account(anon_vmas_->kernel_objects());
  (*process.files)[fd] = std::move(file);
  return static_cast<uint64_t>(fd);
}

SysResult<uint64_t> Processes::Open(Pid pid, const std::string& path, uint32_t flags, int32_t wished_fd) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  std::shared_ptr<Inode> inode = files_.Find(path);
  if (inode == nullptr) return Refuse(Errno::kENOENT, "the machine has no such file");
  const uint32_t mode = flags & 3;  // O_RDONLY 0, O_WRONLY 1, O_RDWR 2.
  if (mode == 3) return Refuse(Errno::kEINVAL, "neither for reading nor for writing");
  return InstallFile(*process, std::make_shared<OpenFile>(std::move(inode), mode != 1, mode != 0), wished_fd);
}

SysResult<uint64_t> Processes::Pipe(Pid pid, int32_t wished_fd) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  return InstallFile(*process, std::make_shared<OpenFile>(files_.NewPipe(), true, false), wished_fd);
}

Errno Processes::Close(Pid pid, int32_t fd) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  const auto it = process->files->find(fd);
  if (it == process->files->end()) return Refuse(Errno::kEBADF, kNotOpen);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFileLookup, "the descriptor is gone; mappings of the file stay").Text("file", it->second->inode->path);
  }
  process->files->erase(it);
  return Errno::kOk;
}

SysResult<uint64_t> Processes::MemfdCreate(Pid pid, const std::string& name, uint32_t flags) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if ((flags & kMemfdHugetlb) == 0 && (flags & ~kMemfdFlags) != 0) return Refuse(Errno::kEINVAL, "unknown flags");
  if (name.size() > kMaxMemfdName) return Refuse(Errno::kEINVAL, "a name of more than 249 characters");
  if ((flags & kMemfdHugetlb) != 0) {
    if ((flags & ~(kMemfdFlags | kMemfdHugetlb | kMemfdHugeMask)) != 0) return Refuse(Errno::kEINVAL, "unknown flags");
    const std::optional<size_t> pool = files_.hugetlb().FindByLog(flags >> kMemfdHugeShift);
    if (!pool.has_value()) return Refuse(Errno::kENODEV, "no huge pages of that size");
    MMLAB_TRY_ASSIGN(std::shared_ptr<Inode> huge,
                     files_.NewHugetlb(FileKind::kMemfd, absl::StrCat("/memfd:", name, " (deleted)"), 0, *pool, /*reserve=*/false));
    return InstallFile(*process, std::make_shared<OpenFile>(std::move(huge), true, true), -1);
  }
  MMLAB_TRY_ASSIGN(std::shared_ptr<Inode> inode, files_.NewShmem(FileKind::kMemfd, absl::StrCat("/memfd:", name, " (deleted)"), 0, true));
  return InstallFile(*process, std::make_shared<OpenFile>(std::move(inode), true, true), -1);
}

Errno Processes::Ftruncate(Pid pid, int32_t fd, uint64_t length) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (length >= kMaxSigned) return Refuse(Errno::kEINVAL, "a negative length");
  const auto it = process->files->find(fd);
  if (it == process->files->end()) return Refuse(Errno::kEBADF, kNotOpen);
  const std::shared_ptr<OpenFile> file = it->second;
  if (!IsRegular(*file->inode) || !file->writable) return Refuse(Errno::kEINVAL, "no regular file, or not open for writing");
  if (length > MaxSize(*file->inode, layout_)) return Refuse(Errno::kEFBIG, "larger than a file can be");
  if (file->inode->swap_area) return Refuse(Errno::kETXTBSY, "a swap area in use");
  if (file->inode->kind == FileKind::kBlockDevice) return Refuse(Errno::kEINVAL, "a device has the size that it has");
  const uint64_t before = file->inode->size;
  const Errno error = files_.Truncate(*file->inode, length);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kFileLookup, error != Errno::kOk ? "the charge of the larger size is refused"
                                    : length < before   ? "what lies beyond the new end goes, out of every page table that maps it too"
                                                        : "the file has its new size; nothing is allocated")
        .Size("before", Bytes(before))
        .Size("after", Bytes(file->inode->size));
  }
  return error;
}

Errno Processes::Fsync(Pid pid, int32_t fd) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  const auto it = process->files->find(fd);
  if (it == process->files->end()) return Refuse(Errno::kEBADF, kNotOpen);
  const std::shared_ptr<OpenFile> file = it->second;
  if (!IsRegular(*file->inode)) return Refuse(Errno::kEINVAL, "nothing that could be written back");
  files_.Sync(*file->inode, PageIndex(0), PageIndex(~uint64_t{0}));
  return Errno::kOk;
}

struct Processes::Transfer {
  Process* process = nullptr;
  std::shared_ptr<OpenFile> file;
  uint64_t address = 0;  // As wide as the machine's words.
  uint64_t length = 0;
};

// What pread() and pwrite() check alike, in this order (ksys_pread64(), vfs_read(), rw_verify_area()).
SysResult<Processes::Transfer> Processes::CheckTransfer(Pid pid, int32_t fd, uint64_t address, uint64_t length, uint64_t offset,
                                                        bool write) {
  Process* process = Enter(pid);
  if (process == nullptr || process->mm == nullptr) return Errno::kESRCH;
  const MmCall call(Core(), *process);
  address = call.Argument(address);
  length = call.Argument(length);
  if (offset >= kMaxSigned) return Refuse(Errno::kEINVAL, "a negative offset");
  const auto it = process->files->find(fd);
  if (it == process->files->end()) return Refuse(Errno::kEBADF, kNotOpen);
  const std::shared_ptr<OpenFile> file = it->second;
  if (file->inode->kind == FileKind::kPipe) return Refuse(Errno::kESPIPE, "a pipe has no offsets");
  if (write ? !file->writable : !file->readable) return Refuse(Errno::kEBADF, "the file is not open for that");
  if (!call.AccessOk(address, length)) return Refuse(Errno::kEFAULT, "the memory leaves user space");
  if (length > call.word_mask() >> 1 || offset + length >= kMaxSigned) return Refuse(Errno::kEINVAL, "offset + length is negative");
  return Transfer{process, file, address, length};
}

SysResult<uint64_t> Processes::Explained(SysResult<uint64_t> moved, const char* what) const {
  if (Explanation* why = tracer_.explanation()) {
    if (moved.ok()) {
      why->Add(StepKind::kFileLookup, what).Size("moved", Bytes(moved.value()));
    } else {
      why->Add(StepKind::kFileLookup, "not one byte could be moved").Error(moved.error());
    }
  }
  return moved;
}

SysResult<uint64_t> Processes::Pread(Pid pid, int32_t fd, uint64_t address, uint64_t length, uint64_t offset) {
  MMLAB_TRY_ASSIGN(const Transfer transfer, CheckTransfer(pid, fd, address, length, offset, /*write=*/false));
  return Explained(ReadFile(*transfer.process, *transfer.file, transfer.address, std::min(transfer.length, kMaxReadWrite), offset),
                   "bytes went from the page cache to memory");
}

SysResult<uint64_t> Processes::Pwrite(Pid pid, int32_t fd, uint64_t address, uint64_t length, uint64_t offset) {
  MMLAB_TRY_ASSIGN(const Transfer transfer, CheckTransfer(pid, fd, address, length, offset, /*write=*/true));
  if (transfer.length == 0) return uint64_t{0};
  if (transfer.file->inode->swap_area) return Refuse(Errno::kETXTBSY, "a swap area in use");
  uint64_t room = kMaxReadWrite;
  if (const Inode& inode = *transfer.file->inode; IsRegular(inode)) {
    const uint64_t max_size = MaxSize(inode, layout_);
    if (offset >= max_size) return Refuse(Errno::kEFBIG, "beyond what a file can hold");
    room = std::min(room, max_size - offset);
  }
  return Explained(WriteFile(*transfer.process, *transfer.file, transfer.address, std::min(transfer.length, room), offset),
                   "bytes went from memory to the page cache");
}

}  // namespace mmlab
