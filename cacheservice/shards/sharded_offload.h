// One block value on its way to one or two pods. Where a pod fails or refuses, the value goes to the next choice. Keeps
// itself alive until `done` is called; any thread.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_OFFLOAD_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_OFFLOAD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/shards/block_sites.h"
#include "cacheservice/shards/pod_set.h"

namespace tidepool {

// Counts of blocks: what each pod did is counted by the pod.
struct OffloadCounters {
  std::atomic<int64_t> blocks{0}, bytes{0}, failures{0}, degraded{0};
};

class ShardedOffload : public std::enable_shared_from_this<ShardedOffload> {
 public:
  // All three live until `done` is called.
  struct Service {
    PodSet* pods;
    BlockSites* sites;
    OffloadCounters* counters;
  };
  static void Start(Service service, int copies, BlockId id, std::string value, OffloadOptions options,
                    std::function<void(absl::Status)> done);

 private:
  ShardedOffload(Service service, int copies, BlockId id, size_t bytes, OffloadOptions options,
                 std::function<void(absl::Status)> done);
  // Gives a copy to the best pod that was not tried. `again`: another pod has failed to take it.
  void Send(std::string value, bool again, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  // A copy is stored, or nobody takes it.
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  const Service service_;
  const int copies_;
  const BlockId id_;
  const size_t bytes_;
  const OffloadOptions options_;
  const std::function<void(absl::Status)> done_;
  Mutex mutex_;
  std::vector<uint32_t> tried_ ABSL_GUARDED_BY(mutex_);  // ids of pods
  int left_ ABSL_GUARDED_BY(mutex_);                     // copies under way
  int stored_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_OFFLOAD_H_
