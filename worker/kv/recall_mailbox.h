// The answer to a recall, handed from the cache's thread to the engine's.
#ifndef TIDEPOOL_WORKER_KV_RECALL_MAILBOX_H_
#define TIDEPOOL_WORKER_KV_RECALL_MAILBOX_H_

#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/api/block_cache.h"

namespace tidepool {

class RecallMailbox {
 public:
  void Put(absl::StatusOr<RecalledRows> rows);
  // From the asking to the answer, once that was put here.
  absl::Duration took();
  // nullopt when nothing has come by the deadline.
  std::optional<absl::StatusOr<RecalledRows>> TakeBy(absl::Time deadline);
  std::optional<absl::StatusOr<RecalledRows>> TryTake();

 private:
  Mutex mutex_;
  CondVar arrived_;
  std::optional<absl::StatusOr<RecalledRows>> rows_ ABSL_GUARDED_BY(mutex_);
  absl::Duration took_ ABSL_GUARDED_BY(mutex_);
  const absl::Time asked_ = absl::Now();
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_RECALL_MAILBOX_H_
