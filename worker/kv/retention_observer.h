// Who wants to see what compression and recall do to one sequence (`tidepool inspect`, tests). Called from the engine
// thread, in the order of the steps; must not block for long. Nobody listens by default, and then nothing is computed.
#ifndef TIDEPOOL_WORKER_KV_RETENTION_OBSERVER_H_
#define TIDEPOOL_WORKER_KV_RETENTION_OBSERVER_H_

#include <cstdint>

#include "worker/backend/backend.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

class RetentionObserver {
 public:
  virtual ~RetentionObserver() = default;

  // Inside a step, right before a layer attends: `rows` are what it attends to, those of the step's own `tokens` and
  // the recalled ones included. `compressed`: the policy has evicted rows before.
  virtual void BeforeAttention(Backend& backend, const SequenceRows& rows, int layer, int32_t first_position,
                               int32_t tokens, bool compressed, const SliceQueries& queries) = 0;
  // The row of `position` leaves, and lives on in the row of `into`, which stays.
  virtual void OnMerge(int layer, int kv_head, int32_t position, int32_t into) = 0;
  // The prompt of a turn is in, `tokens` tokens so far, and the policy has acted.
  virtual void AfterPrompt(Backend& backend, const SequenceRows& rows, int32_t tokens) = 0;
  // A decoding step is over, and the policy has acted.
  virtual void AfterStep(const SequenceRows& rows, int32_t tokens) = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_RETENTION_OBSERVER_H_
