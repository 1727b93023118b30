#ifndef MMLAB_SERVER_PROCESS_TASK_OBJECTS_H_
#define MMLAB_SERVER_PROCESS_TASK_OBJECTS_H_

#include <cstdint>
#include <memory>

#include "server/kernel/kernel_objects.h"

namespace mmlab {

// What a task costs the kernel beside its address space and files: alone, or together with the tasks that share a structure.
struct TaskObjects {
  KernelObjectRef task;   // task_struct
  KernelObjectRef stack;  // Its kernel stack.
  KernelObjectRef pid;
  KernelObjectRef security;
  std::shared_ptr<KernelObjectRef> cred;
  std::shared_ptr<KernelObjectRef> cred_security;
  std::shared_ptr<KernelObjectRef> files;
  std::shared_ptr<KernelObjectRef> fs;
  std::shared_ptr<KernelObjectRef> sighand;
  std::shared_ptr<KernelObjectRef> signal;

  // copy_process(): what the child of `parent` gets of its own and what it shares, by CLONE_*. Null: objects are not accounted.
  static TaskObjects Fork(KernelObjects* objects, const TaskObjects& parent, uint64_t clone_flags);
  // begin_new_exec(): other credentials, and no longer what other processes have too.
  void Exec(KernelObjects* objects);
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_TASK_OBJECTS_H_
