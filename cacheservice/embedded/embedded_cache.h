// The cache in the worker's own process: the storage of the service behind the interface of the service, without a
// wire. Offloaded blocks wait in a bounded queue for one writer thread, which stores what has gathered in one go
// (durable ones share a sync). Recalls run on a few threads. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_EMBEDDED_EMBEDDED_CACHE_H_
#define TIDEPOOL_CACHESERVICE_EMBEDDED_EMBEDDED_CACHE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/api/manifest_store.h"
#include "cacheservice/manifests/manifest_store_disk.h"
#include "cacheservice/tiers/cache_options.h"
#include "cacheservice/tiers/pin_table.h"
#include "cacheservice/tiers/tiered_store.h"
#include "policies/kv/kv_layout.h"

namespace tidepool {

class EmbeddedCache final : public BlockCache {
 public:
  // `layout` is that of the one model whose blocks are kept: blocks of another are refused (InvalidArgument naming the
  // field). Errors as CacheStorage::Open.
  static absl::StatusOr<std::unique_ptr<EmbeddedCache>> Open(const CacheOptions& options, const KvLayout& layout);
  // Stores what was offloaded, answers what was asked, calls every `done`; then closes.
  ~EmbeddedCache() override;

  absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) override;
  // `done` is called from the writer thread. It must not offload: the writer may be what makes room.
  void Offload(BlockId id, std::string value, OffloadOptions options, std::function<void(absl::Status)> done) override;
  // `done` is called from a recall thread.
  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done) override;
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      const ReadTerms& terms) override;
  BlockCacheStats Stats() const override;

  // Live as long as the cache.
  ManifestStore* manifests();
  DiskManifestStore* disk_manifests();
  TieredStore* blocks();
  PinTable* pins();

 private:
  class Impl;
  explicit EmbeddedCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_EMBEDDED_EMBEDDED_CACHE_H_
