#ifndef MMLAB_SERVER_BASE_ERRNO_H_
#define MMLAB_SERVER_BASE_ERRNO_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace mmlab {

// What the simulated kernel refuses with; the numbers are Linux's (include/uapi/asm-generic/errno*.h), independent of the host.
enum class Errno : uint8_t {
  kOk = 0,
  kEPERM = 1,
  kENOENT = 2,
  kESRCH = 3,
  kEINTR = 4,
  kEIO = 5,
  kENXIO = 6,
  kE2BIG = 7,
  kENOEXEC = 8,
  kEBADF = 9,
  kECHILD = 10,
  kEAGAIN = 11,
  kENOMEM = 12,
  kEACCES = 13,
  kEFAULT = 14,
  kEBUSY = 16,
  kEEXIST = 17,
  kENODEV = 19,
  kENOTDIR = 20,
  kEISDIR = 21,
  kEINVAL = 22,
  kENFILE = 23,
  kEMFILE = 24,
  kETXTBSY = 26,
  kEFBIG = 27,
  kENOSPC = 28,
  kESPIPE = 29,
  kEROFS = 30,
  kERANGE = 34,
  kENOSYS = 38,
  kEIDRM = 43,
  kEOVERFLOW = 75,
  kEOPNOTSUPP = 95,
};

// "ENOMEM"; "OK" for kOk.
absl::string_view ErrnoName(Errno e);

// The text that strerror(3) of glibc gives.
absl::string_view ErrnoText(Errno e);

}  // namespace mmlab

#endif  // MMLAB_SERVER_BASE_ERRNO_H_
