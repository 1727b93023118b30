#include "server/process/task_objects.h"

namespace mmlab {
namespace {

constexpr uint64_t kCloneFs = 0x200;
constexpr uint64_t kCloneFiles = 0x400;
constexpr uint64_t kCloneSighand = 0x800;
constexpr uint64_t kCloneThread = 0x10000;

using Shared = std::shared_ptr<KernelObjectRef>;

Shared ShareOrTake(bool share, const Shared& parents, KernelObjects* objects, KernelObject kind) {
  return share && parents != nullptr ? parents : std::make_shared<KernelObjectRef>(objects, kind);
}

}  // namespace

TaskObjects TaskObjects::Fork(KernelObjects* objects, const TaskObjects& parent, uint64_t clone_flags) {
  TaskObjects child;
  if (objects == nullptr) return child;
  const bool thread = (clone_flags & kCloneThread) != 0;
  child.task = KernelObjectRef(objects, KernelObject::kTaskStruct);
  child.stack = KernelObjectRef(objects, KernelObject::kKernelStack);
  child.security = KernelObjectRef(objects, KernelObject::kTaskSecurity);
  child.cred = ShareOrTake(thread, parent.cred, objects, KernelObject::kCred);
  child.cred_security = ShareOrTake(thread, parent.cred_security, objects, KernelObject::kCredSecurity);
  child.files = ShareOrTake((clone_flags & kCloneFiles) != 0, parent.files, objects, KernelObject::kFilesStruct);
  child.fs = ShareOrTake((clone_flags & kCloneFs) != 0, parent.fs, objects, KernelObject::kFsStruct);
  child.sighand = ShareOrTake((clone_flags & kCloneSighand) != 0, parent.sighand, objects, KernelObject::kSighand);
  child.signal = ShareOrTake(thread, parent.signal, objects, KernelObject::kSignal);
  child.pid = KernelObjectRef(objects, KernelObject::kPid);
  return child;
}

void TaskObjects::Exec(KernelObjects* objects) {
  if (objects == nullptr) return;
  cred = std::make_shared<KernelObjectRef>(objects, KernelObject::kCred);
  cred_security = std::make_shared<KernelObjectRef>(objects, KernelObject::kCredSecurity);
  if (files.use_count() > 1) files = std::make_shared<KernelObjectRef>(objects, KernelObject::kFilesStruct);
  if (sighand.use_count() > 1) sighand = std::make_shared<KernelObjectRef>(objects, KernelObject::kSighand);
}

}  // namespace mmlab
