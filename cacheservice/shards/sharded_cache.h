// A cache service of several pods behind the interfaces of one. A block lives on the pod that rendezvous hashing of its
// key names (policies/tier/rendezvous.h), a manifest on two (manifest_copies.h). A pod that fails is left out: what
// goes there goes to the next choice, what only it has is a miss, and nobody else's part fails. Blocks are also looked
// for at their second choice, so who comes or goes does not lose what is stored. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_CACHE_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_CACHE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/api/manifest_store.h"
#include "cacheservice/remote/remote_cache.h"
#include "cacheservice/shards/pod.h"
#include "cacheservice/shards/pod_list.h"

namespace tidepool {

struct ShardedCacheOptions {
  PodList pods;
  // Of each connection; endpoint, wait_for_service and recall_patience are not used. write_behind_bytes is for each
  // pod, and what a pod that failed leaves goes to the others beside it.
  RemoteCacheOptions remote;
  int copies = 1;  // of each block, 1 or 2: with 2 a pod that fails costs no block
  PodTiming timing;
  absl::Duration resolve_interval = absl::Seconds(10);  // of pods from DNS
  std::string own_name;                                 // a pod of this name is not used: it is the caller
  // In place of DNS and `pods`, for tests.
  std::function<absl::StatusOr<std::vector<std::string>>()> resolve;
};

class ShardedCache final : public BlockCache, public ManifestStore {
 public:
  // Does not wait for the pods. InvalidArgument naming the option.
  static absl::StatusOr<std::unique_ptr<ShardedCache>> Connect(ShardedCacheOptions options);
  // Fails what is not done (Unavailable) and closes the connections.
  ~ShardedCache() override;

  absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) override;
  void Offload(BlockId id, std::string value, OffloadOptions options, std::function<void(absl::Status)> done) override;
  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done) override;
  // Unavailable only when no pod can be reached: what a pod does not answer is missing.
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      const ReadTerms& terms) override;
  BlockCacheStats Stats() const override;

  absl::Status Put(const SessionManifest& manifest, absl::Time deadline) override;
  absl::StatusOr<std::optional<SessionManifest>> Get(std::string_view tenant, std::string_view session_id,
                                                     absl::Time deadline) override;
  absl::Status Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) override;

  // For a pod that hands on what it has: ManifestCopies::CopyIn.
  absl::Status CopyManifest(const SessionManifest& manifest, absl::Time deadline);
  // Waits until every pod has answered or was given up, or until `deadline`. Number of pods that take new blocks.
  int WaitForPods(absl::Time deadline);

 private:
  class Impl;
  explicit ShardedCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_SHARDED_CACHE_H_
