#ifndef MMLAB_SERVER_BASE_CHECK_H_
#define MMLAB_SERVER_BASE_CHECK_H_

#include <stdexcept>

namespace mmlab {

// A broken promise inside one machine. Thrown, not aborted: whoever runs the machine catches it, takes that one machine out of
// service and keeps the others running. Nothing else in the engine throws or catches.
class CheckFailure : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void FailCheck(const char* condition, const char* file, int line);

}  // namespace mmlab

// Tests what must always be true of correct code (never what a caller or user may get wrong). Throws CheckFailure when it is not.
#define MMLAB_CHECK(condition)                            \
  do {                                                    \
    if (!(condition)) [[unlikely]]                        \
      ::mmlab::FailCheck(#condition, __FILE__, __LINE__); \
  } while (false)

#endif  // MMLAB_SERVER_BASE_CHECK_H_
