#include "worker/kv/recall_mailbox.h"

#include <chrono>
#include <utility>

namespace tidepool {

void RecallMailbox::Put(absl::StatusOr<RecalledRows> rows) {
  const absl::Duration took = absl::Now() - asked_;
  MutexLock lock(&mutex_);
  rows_ = std::move(rows);
  took_ = took;
  arrived_.SignalAll();
}

absl::Duration RecallMailbox::took() {
  MutexLock lock(&mutex_);
  return took_;
}

std::optional<absl::StatusOr<RecalledRows>> RecallMailbox::TakeBy(absl::Time deadline) {
  MutexLock lock(&mutex_);
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoMicroseconds(deadline - absl::Now());
  while (!rows_.has_value()) {
    if (!arrived_.WaitUntil(&mutex_, until)) break;
  }
  return std::exchange(rows_, std::nullopt);
}

std::optional<absl::StatusOr<RecalledRows>> RecallMailbox::TryTake() {
  MutexLock lock(&mutex_);
  return std::exchange(rows_, std::nullopt);
}

}  // namespace tidepool
