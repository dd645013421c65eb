// Gathers the values that all streams have brought and stores them in batches: durable ones share a sync.
#ifndef TIDEPOOL_CACHESERVICE_RPC_PUT_QUEUE_H_
#define TIDEPOOL_CACHESERVICE_RPC_PUT_QUEUE_H_

#include <functional>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "cacheservice/tiers/tiered_store.h"

namespace tidepool {

// Bounded by the credit of the streams: nobody hands in more than he was granted. Thread-safe.
class PutQueue {
 public:
  explicit PutQueue(TieredStore* blocks);
  // Stores what is queued, then ends.
  ~PutQueue();
  PutQueue(const PutQueue&) = delete;
  PutQueue& operator=(const PutQueue&) = delete;

  // `done` is called once from the queue's thread.
  void Add(BlockPut put, std::function<void(absl::StatusOr<Tier>)> done);

 private:
  void Work();

  struct Entry {
    BlockPut put;
    std::function<void(absl::StatusOr<Tier>)> done;
  };
  TieredStore* const blocks_;
  Mutex mutex_;
  CondVar wake_;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_PUT_QUEUE_H_
