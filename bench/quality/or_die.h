// Ends the program with a message when what it needs is not to be had: a report has no caller to tell.
#ifndef TIDEPOOL_BENCH_QUALITY_OR_DIE_H_
#define TIDEPOOL_BENCH_QUALITY_OR_DIE_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tidepool::quality {

[[noreturn]] void Die(const std::string& message);

inline void OrDie(const absl::Status& status) {
  if (!status.ok()) Die(std::string(status.message()));
}

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  OrDie(value.status());
  return *std::move(value);
}

// The whole file.
std::string ReadAll(const std::string& path);

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_OR_DIE_H_
