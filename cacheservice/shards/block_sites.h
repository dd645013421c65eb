// Blocks that were found, or stored, elsewhere than where they are looked for first: after pods have come or gone they
// are asked for at once where they are. A hint, bounded: when it is full it is forgotten. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_BLOCK_SITES_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_BLOCK_SITES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"
#include "policies/kv/block_key.h"

namespace tidepool {

class BlockSites {
 public:
  static constexpr size_t kMost = size_t{1} << 16;  // blocks; some 3 MiB

  // Id of the pod, or 0: not known.
  uint32_t Find(const BlockKey& key) const {
    if (count_.load() == 0) return 0;
    MutexLock lock(&mutex_);
    const auto at = pods_.find(key);
    return at == pods_.end() ? 0 : at->second;
  }
  void Put(const BlockKey& key, uint32_t pod) {
    MutexLock lock(&mutex_);
    if (pods_.size() >= kMost) pods_.clear();
    pods_[key] = pod;
    count_.store(pods_.size());
  }

 private:
  std::atomic<size_t> count_{0};  // while nothing has moved, nothing is locked
  mutable Mutex mutex_;
  absl::flat_hash_map<BlockKey, uint32_t> pods_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_BLOCK_SITES_H_
