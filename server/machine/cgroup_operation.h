#ifndef MMLAB_SERVER_MACHINE_CGROUP_OPERATION_H_
#define MMLAB_SERVER_MACHINE_CGROUP_OPERATION_H_

#include <string>

namespace mmlab::op {

// Operations on control groups. `cgroup` is a path below the root of the hierarchy: "a/b".
struct CreateCgroup {
  std::string cgroup;
};
struct RemoveCgroup {
  std::string cgroup;
};
struct WriteCgroupFile {
  std::string cgroup;
  std::string file;
  std::string value;
};

}  // namespace mmlab::op

#endif  // MMLAB_SERVER_MACHINE_CGROUP_OPERATION_H_
