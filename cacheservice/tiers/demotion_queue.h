// Values on their way from memory to disk: a bounded queue and the one thread that writes it, many values at a time.
// Until a value is on disk (or could not be written) it is found here. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_DEMOTION_QUEUE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_DEMOTION_QUEUE_H_

#include <cstdint>
#include <deque>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"
#include "cacheservice/tiers/block_value.h"
#include "cacheservice/tiers/departure_log.h"
#include "cacheservice/tiers/tenant_disks.h"
#include "cacheservice/tiers/tenant_table.h"

namespace tidepool {

class DemotionQueue {
 public:
  // `disk` outlives the queue, and `departures`, which is told of what is lost.
  DemotionQueue(TenantDisks* disk, uint64_t limit_bytes, DepartureLog* departures);
  // Writes what is left.
  ~DemotionQueue();
  DemotionQueue(const DemotionQueue&) = delete;
  DemotionQueue& operator=(const DemotionQueue&) = delete;

  // Waits while the queue is full. One value always fits into an empty queue.
  void Push(const BlockId& id, const BlockValue& value, TenantId tenant);

  // Null: not here.
  BlockValue Find(const BlockId& id) const;

  // More than half of the limit is taken: those who can do without pushing should.
  bool Busy() const;

  // Returns when all that was pushed before is written or lost.
  void Drain();

  struct Stats {
    uint64_t bytes = 0;
    uint64_t written = 0;
    uint64_t lost = 0;  // could not be written
  };
  Stats stats() const;

 private:
  void Run();

  struct Waiting {
    BlockValue value;
    TenantId tenant;
  };

  TenantDisks* const disk_;
  const uint64_t limit_bytes_;
  DepartureLog* const departures_;
  mutable Mutex mutex_;
  CondVar work_;     // something was pushed, or closing
  CondVar written_;  // something left the queue
  std::deque<BlockId> order_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<BlockId, Waiting> values_ ABSL_GUARDED_BY(mutex_);  // those being written, too
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  uint64_t pushed_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t settled_ ABSL_GUARDED_BY(mutex_) = 0;  // of those pushed, in order
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_DEMOTION_QUEUE_H_
