#ifndef MMLAB_SERVER_PROCFS_PROCFS_H_
#define MMLAB_SERVER_PROCFS_PROCFS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/process/pid.h"

namespace mmlab {

class Machine;

// The files below /proc that a machine can show, sorted: "buddyinfo", "7/maps", "sys/vm/swappiness". Files of other file
// systems come with their full path: "/sys/kernel/debug/extfrag/extfrag_index".
std::vector<std::string> ListProcFiles(const Machine& machine);
// Those of one process ("7/maps"); empty when there is none.
std::vector<std::string> ListProcFiles(const Machine& machine, Pid pid);

// A file's bytes as the machine's kernel would print them; `path` below /proc, without a leading slash ("/proc/" in front is taken too).
// Of the files of page_frames.h, which are as long as memory: the first part.
// NOT_FOUND: the machine's kernel has no such file, or no such process. UNIMPLEMENTED: it has, the machine cannot show it yet.
absl::StatusOr<std::string> ReadProcFile(const Machine& machine, absl::string_view path);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_PROCFS_H_
