#include "server/base/errno.h"

#include <cerrno>
#include <cstring>

#include "gtest/gtest.h"

namespace mmlab {
namespace {

// The host is a Linux of the generic errno table, so its own numbers and texts judge ours.
TEST(ErrnoTest, NumbersNamesAndTextsAreLinuxs) {
  struct Case {
    Errno ours;
    int host;
    absl::string_view name;
  };
  const Case cases[] = {
      {Errno::kEPERM, EPERM, "EPERM"},
      {Errno::kENOENT, ENOENT, "ENOENT"},
      {Errno::kESRCH, ESRCH, "ESRCH"},
      {Errno::kEINTR, EINTR, "EINTR"},
      {Errno::kEIO, EIO, "EIO"},
      {Errno::kENXIO, ENXIO, "ENXIO"},
      {Errno::kE2BIG, E2BIG, "E2BIG"},
      {Errno::kENOEXEC, ENOEXEC, "ENOEXEC"},
      {Errno::kEBADF, EBADF, "EBADF"},
      {Errno::kECHILD, ECHILD, "ECHILD"},
      {Errno::kEAGAIN, EAGAIN, "EAGAIN"},
      {Errno::kENOMEM, ENOMEM, "ENOMEM"},
      {Errno::kEACCES, EACCES, "EACCES"},
      {Errno::kEFAULT, EFAULT, "EFAULT"},
      {Errno::kEBUSY, EBUSY, "EBUSY"},
      {Errno::kEEXIST, EEXIST, "EEXIST"},
      {Errno::kENODEV, ENODEV, "ENODEV"},
      {Errno::kENOTDIR, ENOTDIR, "ENOTDIR"},
      {Errno::kEISDIR, EISDIR, "EISDIR"},
      {Errno::kEINVAL, EINVAL, "EINVAL"},
      {Errno::kENFILE, ENFILE, "ENFILE"},
      {Errno::kEMFILE, EMFILE, "EMFILE"},
      {Errno::kETXTBSY, ETXTBSY, "ETXTBSY"},
      {Errno::kEFBIG, EFBIG, "EFBIG"},
      {Errno::kENOSPC, ENOSPC, "ENOSPC"},
      {Errno::kESPIPE, ESPIPE, "ESPIPE"},
      {Errno::kEROFS, EROFS, "EROFS"},
      {Errno::kERANGE, ERANGE, "ERANGE"},
      {Errno::kENOSYS, ENOSYS, "ENOSYS"},
      {Errno::kEIDRM, EIDRM, "EIDRM"},
      {Errno::kEOVERFLOW, EOVERFLOW, "EOVERFLOW"},
      {Errno::kEOPNOTSUPP, EOPNOTSUPP, "EOPNOTSUPP"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.name));
    EXPECT_EQ(static_cast<int>(c.ours), c.host);
    EXPECT_EQ(ErrnoName(c.ours), c.name);
    EXPECT_EQ(ErrnoText(c.ours), strerror(c.host));
  }
}

TEST(ErrnoTest, SuccessHasAName) {
  EXPECT_EQ(ErrnoName(Errno::kOk), "OK");
  EXPECT_EQ(ErrnoText(Errno::kOk), "Success");
}

}  // namespace
}  // namespace mmlab
