#ifndef MMLAB_CLIENT_CLI_EXIT_CODE_H_
#define MMLAB_CLIENT_CLI_EXIT_CODE_H_

namespace mmlab {

// What the mmlab command ends with. A refusal of the simulated kernel (an errno, a signal) is a result that is printed: exit 0.
enum ExitCode : int {
  kExitDone = 0,
  kExitCheckFailed = 1,    // An assertion or comparison that was asked for did not hold.
  kExitUsage = 2,          // The command line makes no sense.
  kExitUnchanged = 3,      // Nothing had to be done (only where --error-unchanged asks for it).
  kExitCannotConnect = 4,  // No server answers.
  kExitLocalFile = 5,      // A file of this host can't be read or has a wrong format.
  kExitStatusBase = 64,    // 64 + gRPC code: the server answered with a status.
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_EXIT_CODE_H_
