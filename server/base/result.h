#ifndef MMLAB_SERVER_BASE_RESULT_H_
#define MMLAB_SERVER_BASE_RESULT_H_

#include <utility>

#include "server/base/check.h"
#include "server/base/errno.h"

namespace mmlab {

// What a simulated system call answers: a value or an errno. A plain pair, cheap enough for the hot path.
// (What is wrong with a request or the service is an absl::Status instead and never meets this type.)
template <typename T>
class [[nodiscard]] SysResult {
 public:
  SysResult(T value) : value_(std::move(value)) {}                // NOLINT(google-explicit-constructor): returns read naturally.
  SysResult(Errno error) : error_(error) { MMLAB_CHECK(!ok()); }  // NOLINT(google-explicit-constructor)

  bool ok() const { return error_ == Errno::kOk; }
  Errno error() const { return error_; }
  const T& value() const& {
    MMLAB_CHECK(ok());
    return value_;
  }
  T&& value() && {
    MMLAB_CHECK(ok());
    return std::move(value_);
  }

 private:
  T value_{};
  Errno error_ = Errno::kOk;
};

}  // namespace mmlab

#define MMLAB_CONCAT_INNER(a, b) a##b
#define MMLAB_CONCAT(a, b) MMLAB_CONCAT_INNER(a, b)

// MMLAB_TRY(expr): expr is an Errno; returns it from the enclosing function unless it is kOk.
#define MMLAB_TRY(expr)                                                                                                \
  do {                                                                                                                 \
    if (const ::mmlab::Errno mmlab_try_error = (expr); mmlab_try_error != ::mmlab::Errno::kOk) return mmlab_try_error; \
  } while (false)

// MMLAB_TRY_ASSIGN(declaration, expr): expr is a SysResult; assigns its value or returns its errno.
#define MMLAB_TRY_ASSIGN(declaration, expr) MMLAB_TRY_ASSIGN_INNER(MMLAB_CONCAT(mmlab_result_, __LINE__), declaration, expr)
#define MMLAB_TRY_ASSIGN_INNER(result, declaration, expr) \
  auto result = (expr);                                   \
  if (!result.ok()) return result.error();                \
  declaration = std::move(result).value()

#endif  // MMLAB_SERVER_BASE_RESULT_H_
