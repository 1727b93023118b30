#include "client/cli/proc_mount.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace mmlab {
namespace {

constexpr int kNotAllowed = 126;
constexpr int kNotFound = 127;

bool WriteAll(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t written = write(fd, text.data(), text.size());
  close(fd);
  return written == static_cast<ssize_t>(text.size());
}

// Between fork and exec: a process of one thread, which user namespaces ask for.
[[noreturn]] void Become(const char* proc, char* const* arguments, const std::string& uid_map, const std::string& gid_map) {
  const bool alone = unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && WriteAll("/proc/self/setgroups", "deny") &&
                     WriteAll("/proc/self/uid_map", uid_map) && WriteAll("/proc/self/gid_map", gid_map);
  if (!alone || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 || mount(proc, "/proc", nullptr, MS_BIND, nullptr) != 0) {
    std::fprintf(stderr, "error: this host does not allow a /proc of one's own: %s\n", std::strerror(errno));
    _exit(kNotAllowed);
  }
  execvp(arguments[0], arguments);
  std::fprintf(stderr, "error: cannot run %s: %s\n", arguments[0], std::strerror(errno));
  _exit(kNotFound);
}

}  // namespace

int RunWithProc(const std::filesystem::path& proc, const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const std::string folder = proc.string();
  const std::string uid_map = fmt::format("{} {} 1\n", geteuid(), geteuid());
  const std::string gid_map = fmt::format("{} {} 1\n", getegid(), getegid());
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return kNotAllowed;
  if (child == 0) Become(folder.c_str(), arguments.data(), uid_map, gid_map);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace mmlab
