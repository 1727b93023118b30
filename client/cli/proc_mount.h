#ifndef MMLAB_CLIENT_CLI_PROC_MOUNT_H_
#define MMLAB_CLIENT_CLI_PROC_MOUNT_H_

#include <filesystem>
#include <string>
#include <vector>

namespace mmlab {

// Runs a command to which the folder is /proc: in a user and a mount namespace of its own, so that nobody else sees it and no privileges
// are needed where the host allows such namespaces. Its exit code; 128 + the signal that ended it; 126 when the host forbids the
// namespaces, 127 when there is no such command (both said on stderr).
int RunWithProc(const std::filesystem::path& proc, const std::vector<std::string>& command);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_PROC_MOUNT_H_
