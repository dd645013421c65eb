// The cache service over gRPC. Offload and recall have a long-lived stream and a channel each, so that a burst of
// offload never delays a recall; both reconnect by themselves with back-off. What the service has not acknowledged is
// sent again (stores are idempotent). Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_REMOTE_CACHE_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_REMOTE_CACHE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/api/manifest_store.h"
#include "policies/kv/kv_layout.h"
#include "security/rpc/channel_security.h"

namespace tidepool {

struct RemoteCacheOptions {
  std::string endpoint;  // host:port or unix:PATH
  std::string tenant = "default";
  KvLayout layout;
  std::shared_ptr<const ChannelSecurity> security;      // null: plain text, no token
  size_t write_behind_bytes = size_t{64} << 20;         // offloaded and not acknowledged; Offload waits above it
  absl::Duration offload_patience = absl::Seconds(60);  // a block not stored after so long has failed
  absl::Duration recall_patience = absl::Seconds(5);    // the service is away for longer: recalls fail at once
  absl::Duration lookup_patience = absl::Seconds(2);    // a prefix lookup that takes longer is given up
};

class RemoteCache final : public BlockCache, public ManifestStore {
 public:
  // Does not wait for the service: it may come later. InvalidArgument naming the option.
  static absl::StatusOr<std::unique_ptr<RemoteCache>> Connect(RemoteCacheOptions options);
  // Fails what is not done (Unavailable) and closes the streams.
  ~RemoteCache() override;

  absl::StatusOr<int> LookupPrefix(absl::Span<const BlockKey> chain, absl::Time deadline) override;
  void Offload(BlockId id, std::string value, OffloadOptions options, std::function<void(absl::Status)> done) override;
  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done) override;
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      absl::Time deadline) override;
  BlockCacheStats Stats() const override;

  absl::Status Put(const SessionManifest& manifest, absl::Time deadline) override;
  absl::StatusOr<std::optional<SessionManifest>> Get(std::string_view tenant, std::string_view session_id,
                                                     absl::Time deadline) override;
  absl::Status Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) override;

 private:
  class Impl;
  explicit RemoteCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_REMOTE_CACHE_H_
