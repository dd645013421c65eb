// What the reactors of the cache service share: the storage, the threads that may block on it, and the counts that show
// leaks.
#ifndef TIDEPOOL_CACHESERVICE_RPC_CACHE_CONTEXT_H_
#define TIDEPOOL_CACHESERVICE_RPC_CACHE_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/background.h"
#include "base/mutex.h"
#include "cacheservice/manifests/manifest_store_disk.h"
#include "cacheservice/rpc/put_queue.h"
#include "cacheservice/rpc/stream_table.h"
#include "cacheservice/tiers/tiered_store.h"
#include "policies/kv/kv_layout.h"
#include "security/rpc/server_security.h"

namespace tidepool {

class PinTable;
class PodDrain;
class RuntimeConfig;

struct CacheContext {
  // All that is pointed to outlives the context.
  CacheContext(TieredStore* blocks, DiskManifestStore* manifests, int threads, int64_t most_staging_bytes,
               const ServerSecurity* security)
      : blocks(blocks),
        manifests(manifests),
        most_staging_bytes(most_staging_bytes),
        security(security),
        puts(blocks),
        pool(threads) {}

  // FailedPrecondition naming the field in which the layout differs from that of the same model's other workers.
  absl::Status CheckLayout(const KvLayout& layout) {
    MutexLock lock(&mutex);
    const std::pair<std::string, KvType> model(layout.model_fingerprint, layout.type);
    if (layouts.size() >= kMostModels && !layouts.contains(model)) {
      return absl::ResourceExhaustedError("hello.shape.model_fingerprint: too many different models since the start");
    }
    const auto [at, added] = layouts.try_emplace(model, layout);
    return added ? absl::OkStatus() : SameLayoutAs(at->second, layout);
  }

  // Counts bytes of a value or manifest under way. ResourceExhausted, with nothing counted, when all streams together
  // would hold too much.
  absl::Status Stage(size_t bytes) {
    const int64_t more = static_cast<int64_t>(bytes);
    if (staging_bytes.fetch_add(more) + more <= most_staging_bytes) return absl::OkStatus();
    staging_bytes.fetch_sub(more);
    return absl::ResourceExhaustedError("payload: the service is receiving as much as it may hold, try again later");
  }

  // Runs a call's job on the pool. ResourceExhausted when too many wait: early, before memory runs out.
  absl::Status Run(std::function<void()> job) {
    if (waiting_calls.fetch_add(1) >= kMostWaitingCalls) {
      waiting_calls.fetch_sub(1);
      return absl::ResourceExhaustedError("the service has too many calls waiting, try again later");
    }
    pool.Run([this, job = std::move(job)] {
      waiting_calls.fetch_sub(1);
      job();
    });
    return absl::OkStatus();
  }

  // Unavailable, once a drain has emptied this pod.
  absl::Status CheckTakesNew() const {
    if (!refuses_new.load()) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("pod ", pod_name, " has been drained: it takes nothing new"));
  }

  static constexpr size_t kMostModels = 1024;
  static constexpr int kMostWaitingCalls = 4096;

  TieredStore* const blocks;
  DiskManifestStore* const manifests;
  const int64_t most_staging_bytes;
  const ServerSecurity* const security;
  const absl::Time started = absl::Now();
  std::atomic<int64_t> staging_bytes{0};
  std::atomic<int> waiting_calls{0};
  StreamTable streams;
  PinTable* pins = nullptr;  // set before anything is served, like the two below; outlive the calls
  RuntimeConfig* config = nullptr;
  std::string pod_name;                  // set before anything is served
  std::atomic<bool> draining{false};     // clients of several pods give it nothing new
  std::atomic<bool> refuses_new{false};  // what comes all the same is refused
  PodDrain* drain = nullptr;             // null: no peers. Outlives the calls
  Mutex mutex;
  absl::flat_hash_map<std::pair<std::string, KvType>, KvLayout> layouts ABSL_GUARDED_BY(mutex);
  std::atomic<bool> scrubbing{false}, compacting{false};
  PutQueue puts;
  Background jobs{2};  // of administrators: one of each kind at a time
  Background pool;     // last: its threads end first

 private:
  static absl::Status SameLayoutAs(const KvLayout& known, const KvLayout& given);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_CACHE_CONTEXT_H_
