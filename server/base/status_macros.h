#ifndef MMLAB_SERVER_BASE_STATUS_MACROS_H_
#define MMLAB_SERVER_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Debian's Abseil has no status macros. These return the status of a failed expression from the enclosing function.
#define MMLAB_RETURN_IF_ERROR(expr)                                                    \
  do {                                                                                 \
    if (::absl::Status mmlab_status = (expr); !mmlab_status.ok()) return mmlab_status; \
  } while (false)

#define MMLAB_STATUS_CONCAT_INNER(a, b) a##b
#define MMLAB_STATUS_CONCAT(a, b) MMLAB_STATUS_CONCAT_INNER(a, b)
#define MMLAB_ASSIGN_OR_RETURN(declaration, expr) \
  MMLAB_ASSIGN_OR_RETURN_INNER(MMLAB_STATUS_CONCAT(mmlab_statusor_, __LINE__), declaration, expr)
#define MMLAB_ASSIGN_OR_RETURN_INNER(statusor, declaration, expr) \
  auto statusor = (expr);                                         \
  if (!statusor.ok()) return std::move(statusor).status();        \
  declaration = *std::move(statusor)

#endif  // MMLAB_SERVER_BASE_STATUS_MACROS_H_
