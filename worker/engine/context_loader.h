// Fetches what a request can build on - its session's state or a stored prefix of its prompt - from the cache service
// into host memory. Blocking: runs in the background. Installing it on the device is the engine thread's.
#ifndef TIDEPOOL_WORKER_ENGINE_CONTEXT_LOADER_H_
#define TIDEPOOL_WORKER_ENGINE_CONTEXT_LOADER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/api/manifest_store.h"

namespace tidepool {

class LoadCost;  // worker/engine/load_cost.h

struct LoadedContext {
  absl::Status status;                      // not OK: the request fails with it
  std::optional<SessionManifest> manifest;  // of the session, when it is stored
  bool resident_is_current = false;         // the context that the worker still holds has this manifest's revision
  bool blocks_missing = false;              // the session's tokens must be computed again
  int32_t longest_head = 0;                 // rows of the session's context
  std::vector<BlockKey> keys;               // of `values`
  std::vector<std::string> values;          // [block][layer], verified
  int32_t slow_tokens = 0;                  // stored, and not loaded because that would take longer than computing them
};

class ContextLoader {
 public:
  // `cost` outlives the loader.
  ContextLoader(KvLayout layout, std::string tenant, std::string tenant_salt, absl::Duration deadline,
                BlockCache* cache, ManifestStore* manifests, LoadCost* cost)
      : layout_(std::move(layout)),
        tenant_(std::move(tenant)),
        tenant_salt_(std::move(tenant_salt)),
        deadline_(deadline),
        cache_(cache),
        manifests_(manifests),
        cost_(cost) {}

  // `resident_revision`: of the context that the worker holds, or -1.
  LoadedContext LoadSession(const std::string& session_id, int64_t resident_revision) const;
  // The longest stored prefix of `prompt` of at most `most_tokens` tokens, or as much of it as is worth loading. A
  // cache that fails gives an empty one.
  LoadedContext LoadPrefix(absl::Span<const int32_t> prompt, int32_t most_tokens) const;
  // How many tokens it would load, of `most_tokens` at most. Unavailable, DeadlineExceeded: the cache's.
  absl::StatusOr<int32_t> StoredPrefix(absl::Span<const int32_t> prompt, int32_t most_tokens,
                                       absl::Time deadline) const;

 private:
  // All layers of a chain's blocks, verified, of this layout and in their places; the last block may be partly filled
  // when `last_may_be_partial`. NotFound naming the first block that is not there.
  absl::StatusOr<std::vector<std::string>> Fetch(absl::Span<const BlockKey> keys, bool last_may_be_partial,
                                                 absl::Time deadline) const;
  // Blocks `first` to `first + count - 1` of it, added to `values`.
  absl::Status FetchPart(absl::Span<const BlockKey> keys, size_t first, size_t count, bool last_may_be_partial,
                         const ReadTerms& terms, std::vector<std::string>* values) const;

  const KvLayout layout_;
  const std::string tenant_, tenant_salt_;
  const absl::Duration deadline_;
  BlockCache* const cache_;
  ManifestStore* const manifests_;
  LoadCost* const cost_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_CONTEXT_LOADER_H_
