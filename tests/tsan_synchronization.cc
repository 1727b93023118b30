// Tells ThreadSanitizer what Debian's Abseil, which is built without it, does not: that mutexes, condition variables and notifications
// order what threads do. The functions below stand before Abseil's own for the whole process, gRPC included; linked into tests of the tsan
// build.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include "absl/time/time.h"

extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

namespace {

// Writers and readers release different addresses, so that two readers are not ordered by what they lock.
char* Written(char* mutex) { return mutex; }
char* Read(char* mutex) { return mutex + 1; }

void AfterLock(char* mutex) {
  __tsan_acquire(Written(mutex));
  __tsan_acquire(Read(mutex));
}

// Who unlocks, or waits, evaluates the conditions of others, which are on their stacks.
class ConditionsAreRead {
 public:
  ConditionsAreRead() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~ConditionsAreRead() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
  ConditionsAreRead(const ConditionsAreRead&) = delete;
  ConditionsAreRead& operator=(const ConditionsAreRead&) = delete;
};

template <typename Result, typename... Args>
Result CallReal(void* function, Args... args) {
  const ConditionsAreRead reads;
  return reinterpret_cast<Result (*)(Args...)>(function)(args...);
}

}  // namespace

// The definition of a function of Abseil by its mangled NAME; REAL is Abseil's own within it.
#define MMLAB_STAND_BEFORE(RESULT, FUNCTION, NAME, ...)                              \
  RESULT FUNCTION(__VA_ARGS__) __asm__(NAME) __attribute__((visibility("default"))); \
  static void* Real##FUNCTION() {                                                    \
    static void* const real = dlsym(RTLD_NEXT, NAME);                                \
    return real;                                                                     \
  }                                                                                  \
  RESULT FUNCTION(__VA_ARGS__)

MMLAB_STAND_BEFORE(void, Lock, "_ZN4absl7debian35Mutex4LockEv", char* mutex) {
  CallReal<void>(RealLock(), mutex);
  AfterLock(mutex);
}

MMLAB_STAND_BEFORE(void, Unlock, "_ZN4absl7debian35Mutex6UnlockEv", char* mutex) {
  __tsan_release(Written(mutex));
  CallReal<void>(RealUnlock(), mutex);
}

MMLAB_STAND_BEFORE(bool, TryLock, "_ZN4absl7debian35Mutex7TryLockEv", char* mutex) {
  const bool locked = CallReal<bool>(RealTryLock(), mutex);
  if (locked) AfterLock(mutex);
  return locked;
}

MMLAB_STAND_BEFORE(void, ReaderLock, "_ZN4absl7debian35Mutex10ReaderLockEv", char* mutex) {
  CallReal<void>(RealReaderLock(), mutex);
  __tsan_acquire(Written(mutex));
}

MMLAB_STAND_BEFORE(void, ReaderUnlock, "_ZN4absl7debian35Mutex12ReaderUnlockEv", char* mutex) {
  __tsan_release(Read(mutex));
  CallReal<void>(RealReaderUnlock(), mutex);
}

MMLAB_STAND_BEFORE(bool, ReaderTryLock, "_ZN4absl7debian35Mutex13ReaderTryLockEv", char* mutex) {
  const bool locked = CallReal<bool>(RealReaderTryLock(), mutex);
  if (locked) __tsan_acquire(Written(mutex));
  return locked;
}

MMLAB_STAND_BEFORE(void, Await, "_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE", char* mutex, const void* condition) {
  __tsan_release(Written(mutex));
  CallReal<void>(RealAwait(), mutex, condition);
  AfterLock(mutex);
}

MMLAB_STAND_BEFORE(bool, AwaitWithTimeout, "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE", char* mutex,
                   const void* condition, absl::Duration timeout) {
  __tsan_release(Written(mutex));
  const bool holds = CallReal<bool>(RealAwaitWithTimeout(), mutex, condition, timeout);
  AfterLock(mutex);
  return holds;
}

MMLAB_STAND_BEFORE(void, LockWhen, "_ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE", char* mutex, const void* condition) {
  CallReal<void>(RealLockWhen(), mutex, condition);
  AfterLock(mutex);
}

MMLAB_STAND_BEFORE(void, Wait, "_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE", char* variable, char* mutex) {
  __tsan_release(Written(mutex));
  CallReal<void>(RealWait(), variable, mutex);
  AfterLock(mutex);
}

MMLAB_STAND_BEFORE(bool, WaitWithTimeout, "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE", char* variable,
                   char* mutex, absl::Duration timeout) {
  __tsan_release(Written(mutex));
  const bool timed_out = CallReal<bool>(RealWaitWithTimeout(), variable, mutex, timeout);
  AfterLock(mutex);
  return timed_out;
}

MMLAB_STAND_BEFORE(bool, WaitWithDeadline, "_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE", char* variable, char* mutex,
                   absl::Time deadline) {
  __tsan_release(Written(mutex));
  const bool timed_out = CallReal<bool>(RealWaitWithDeadline(), variable, mutex, deadline);
  AfterLock(mutex);
  return timed_out;
}

MMLAB_STAND_BEFORE(void, Notify, "_ZN4absl7debian312Notification6NotifyEv", char* notification) {
  __tsan_release(notification);
  CallReal<void>(RealNotify(), notification);
}

MMLAB_STAND_BEFORE(void, WaitForNotification, "_ZNK4absl7debian312Notification19WaitForNotificationEv", char* notification) {
  CallReal<void>(RealWaitForNotification(), notification);
  __tsan_acquire(notification);
}
