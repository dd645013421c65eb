// One recall over several pods: each block is asked for where it should be, what does not come there at its second
// choice, and the answers come back as one. A pod that fails costs the rows that nobody else has. Keeps itself alive
// until `done` is called; any thread.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_RECALL_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_RECALL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/shards/block_sites.h"
#include "cacheservice/shards/pod_set.h"
#include "cacheservice/shards/recall_merge.h"

namespace tidepool {

class ShardedRecall : public std::enable_shared_from_this<ShardedRecall> {
 public:
  using Done = std::function<void(absl::StatusOr<RecalledRows>)>;

  // Begins; `sites` lives until `done` is called. At least one pod can be reached, at least one row is asked for.
  static void Start(std::shared_ptr<const Placement> placement, BlockSites* sites, int copies,
                    std::vector<RowSelection> selections, size_t row_bytes, absl::Time deadline, Done done);

 private:
  ShardedRecall(std::shared_ptr<const Placement> placement, BlockSites* sites, std::vector<RowSelection> selections,
                size_t row_bytes, absl::Time deadline, Done done);
  // Asks the next choice of each of these selections, if there is one.
  void Ask(const std::vector<uint32_t>& indices) ABSL_LOCKS_EXCLUDED(mutex_);
  void Take(size_t pod, const std::vector<uint32_t>& indices, absl::StatusOr<RecalledRows> part)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::shared_ptr<const Placement> placement_;
  BlockSites* const sites_;
  const absl::Time deadline_;
  const Done done_;
  Mutex mutex_;
  RecallMerge merge_ ABSL_GUARDED_BY(mutex_);
  std::vector<PodChoices> choices_ ABSL_GUARDED_BY(mutex_);  // [selection]
  std::vector<uint8_t> asked_ ABSL_GUARDED_BY(mutex_);       // [selection] choices that were asked
  int under_way_ ABSL_GUARDED_BY(mutex_) = 1;                // parts, and Start
  bool any_ ABSL_GUARDED_BY(mutex_) = false;                 // a pod has answered
  bool complete_ ABSL_GUARDED_BY(mutex_) = true;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // the first
};

// Where to look for a block, best first: where it was found before, then by the placement.
PodChoices ChoicesToRead(const BlockKey& key, const Placement& placement, const BlockSites& sites, int copies);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_RECALL_H_
