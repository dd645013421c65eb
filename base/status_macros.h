// Propagates absl::Status through early returns. Debian 12's Abseil (20220623) has no such macros; these carry the
// names that later releases use with our prefix, so they can be deleted when it does.
#ifndef TIDEPOOL_BASE_STATUS_MACROS_H_
#define TIDEPOOL_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define TP_CONCAT_INNER_(a, b) a##b
#define TP_CONCAT_(a, b) TP_CONCAT_INNER_(a, b)

// Evaluates `expr` (an absl::Status) and returns it from the enclosing function when it is not OK.
#define TP_RETURN_IF_ERROR(expr)             \
  do {                                       \
    ::absl::Status tp_status_ = (expr);      \
    if (!tp_status_.ok()) return tp_status_; \
  } while (false)

// TP_ASSIGN_OR_RETURN(auto x, F()): assigns the value of a StatusOr or returns its status.
#define TP_ASSIGN_OR_RETURN(lhs, rexpr) TP_ASSIGN_OR_RETURN_IMPL_(TP_CONCAT_(tp_statusor_, __LINE__), lhs, rexpr)
#define TP_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, rexpr) \
  auto statusor = (rexpr);                              \
  if (!statusor.ok()) return statusor.status();         \
  lhs = std::move(statusor).value()

#endif  // TIDEPOOL_BASE_STATUS_MACROS_H_
