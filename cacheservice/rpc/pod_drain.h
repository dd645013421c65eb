// Empties this pod onto its peers before it is taken away (CacheAdmin.Drain): session manifests, and the blocks that
// somebody relies on, go by the peers' own Offload and PutManifest to where they would be if this pod were not there.
// While that goes on clients are told to give nothing new; at its end what comes all the same is refused, and what came
// in between is copied, too. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_RPC_POD_DRAIN_H_
#define TIDEPOOL_CACHESERVICE_RPC_POD_DRAIN_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/rpc/cache_context.h"
#include "cacheservice/shards/pod_list.h"
#include "security/rpc/channel_security.h"

namespace tidepool {

class ShardedCache;

class PodDrain {
 public:
  struct Progress {
    int64_t sessions = 0, sessions_copied = 0, sessions_failed = 0;
    int64_t blocks = 0, blocks_copied = 0, bytes_copied = 0, blocks_failed = 0;
    bool drained = false;
  };
  using Report = std::function<void(const Progress&)>;

  // `context` outlives it.
  // security: towards the peers; null: plain text.
  PodDrain(CacheContext* context, PodList peers, std::shared_ptr<const ChannelSecurity> security)
      : context_(context), peers_(std::move(peers)), security_(std::move(security)) {}
  // Cancels what is under way.
  ~PodDrain();
  PodDrain(const PodDrain&) = delete;
  PodDrain& operator=(const PodDrain&) = delete;

  // Begins, on a thread of its own. `report` is called now and then and once with the last state, then `done` once.
  // FailedPrecondition: another drain is under way.
  absl::Status Start(bool all_blocks, Report report, std::function<void(absl::Status)> done);
  // Ends the drain that is under way early, with Cancelled.
  void Cancel() { cancelled_.store(true); }

 private:
  struct Run;  // of one drain

  absl::Status Drain(Run& run);
  absl::Status CopySessions(Run& run);
  absl::Status CopyBlocks(Run& run);

  CacheContext* const context_;
  const PodList peers_;
  const std::shared_ptr<const ChannelSecurity> security_;
  std::atomic<bool> cancelled_{false};
  Mutex mutex_;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_POD_DRAIN_H_
