#include "server/base/errno.h"

namespace mmlab {
namespace {

struct Entry {
  Errno value;
  absl::string_view name;
  absl::string_view text;
};

constexpr Entry kEntries[] = {
    {Errno::kOk, "OK", "Success"},
    {Errno::kEPERM, "EPERM", "Operation not permitted"},
    {Errno::kENOENT, "ENOENT", "No such file or directory"},
    {Errno::kESRCH, "ESRCH", "No such process"},
    {Errno::kEINTR, "EINTR", "Interrupted system call"},
    {Errno::kEIO, "EIO", "Input/output error"},
    {Errno::kENXIO, "ENXIO", "No such device or address"},
    {Errno::kE2BIG, "E2BIG", "Argument list too long"},
    {Errno::kENOEXEC, "ENOEXEC", "Exec format error"},
    {Errno::kEBADF, "EBADF", "Bad file descriptor"},
    {Errno::kECHILD, "ECHILD", "No child processes"},
    {Errno::kEAGAIN, "EAGAIN", "Resource temporarily unavailable"},
    {Errno::kENOMEM, "ENOMEM", "Cannot allocate memory"},
    {Errno::kEACCES, "EACCES", "Permission denied"},
    {Errno::kEFAULT, "EFAULT", "Bad address"},
    {Errno::kEBUSY, "EBUSY", "Device or resource busy"},
    {Errno::kEEXIST, "EEXIST", "File exists"},
    {Errno::kENODEV, "ENODEV", "No such device"},
    {Errno::kENOTDIR, "ENOTDIR", "Not a directory"},
    {Errno::kEISDIR, "EISDIR", "Is a directory"},
    {Errno::kEINVAL, "EINVAL", "Invalid argument"},
    {Errno::kENFILE, "ENFILE", "Too many open files in system"},
    {Errno::kEMFILE, "EMFILE", "Too many open files"},
    {Errno::kETXTBSY, "ETXTBSY", "Text file busy"},
    {Errno::kEFBIG, "EFBIG", "File too large"},
    {Errno::kENOSPC, "ENOSPC", "No space left on device"},
    {Errno::kESPIPE, "ESPIPE", "Illegal seek"},
    {Errno::kEROFS, "EROFS", "Read-only file system"},
    {Errno::kERANGE, "ERANGE", "Numerical result out of range"},
    {Errno::kENOSYS, "ENOSYS", "Function not implemented"},
    {Errno::kEIDRM, "EIDRM", "Identifier removed"},
    {Errno::kEOVERFLOW, "EOVERFLOW", "Value too large for defined data type"},
    {Errno::kEOPNOTSUPP, "EOPNOTSUPP", "Operation not supported"},
};

const Entry& Find(Errno e) {
  for (const Entry& entry : kEntries) {
    if (entry.value == e) return entry;
  }
  return kEntries[0];
}

}  // namespace

absl::string_view ErrnoName(Errno e) { return Find(e).name; }
absl::string_view ErrnoText(Errno e) { return Find(e).text; }

}  // namespace mmlab
