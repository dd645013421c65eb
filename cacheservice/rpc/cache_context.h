// What the reactors of the cache service share: the storage, the threads that may block on it, and the counts that show
// leaks.
#ifndef TIDEPOOL_CACHESERVICE_RPC_CACHE_CONTEXT_H_
#define TIDEPOOL_CACHESERVICE_RPC_CACHE_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "base/background.h"
#include "base/mutex.h"
#include "cacheservice/manifests/manifest_store_disk.h"
#include "cacheservice/rpc/put_queue.h"
#include "cacheservice/tiers/tiered_store.h"
#include "policies/kv/kv_layout.h"

namespace tidepool {

struct CacheContext {
  CacheContext(TieredStore* blocks, DiskManifestStore* manifests, int threads)
      : blocks(blocks), manifests(manifests), puts(blocks), pool(threads) {}

  // FailedPrecondition naming the field in which the layout differs from that of the same model's other workers.
  absl::Status CheckLayout(const KvLayout& layout) {
    MutexLock lock(&mutex);
    const std::pair<std::string, KvType> model(layout.model_fingerprint, layout.type);
    const auto [at, added] = layouts.try_emplace(model, layout);
    return added ? absl::OkStatus() : SameLayoutAs(at->second, layout);
  }

  TieredStore* const blocks;
  DiskManifestStore* const manifests;
  const absl::Time started = absl::Now();
  std::atomic<int64_t> open_streams{0};
  std::atomic<int64_t> staging_bytes{0};
  Mutex mutex;
  absl::flat_hash_map<std::pair<std::string, KvType>, KvLayout> layouts ABSL_GUARDED_BY(mutex);
  PutQueue puts;
  Background pool;  // last: its threads end first

 private:
  static absl::Status SameLayoutAs(const KvLayout& known, const KvLayout& given);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_CACHE_CONTEXT_H_
