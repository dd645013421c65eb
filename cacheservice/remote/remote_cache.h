// The cache service over gRPC. Offload and recall have a long-lived stream and a channel each, so that a burst of
// offload never delays a recall; both reconnect by themselves with back-off. What the service has not acknowledged is
// sent again (stores are idempotent). Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_REMOTE_CACHE_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_REMOTE_CACHE_H_

#include <cstdint>
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
  std::shared_ptr<const ChannelSecurity> security;  // null: plain text, no token
  size_t write_behind_bytes = size_t{64} << 20;     // offloaded and not acknowledged; Offload waits above it
  // So long in all, until half of it is free again: a service that is merely slow must not set the worker's pace.
  absl::Duration write_behind_patience = absl::Seconds(2);
  absl::Duration offload_patience = absl::Seconds(60);  // a block not stored after so long has failed
  absl::Duration recall_patience = absl::Seconds(5);    // the service is away for longer: recalls fail at once
  absl::Duration lookup_patience = absl::Seconds(2);    // a prefix lookup that takes longer is given up
  // Calls wait for a service that is away until their deadline, and are made again when their connection breaks; else
  // they fail at once.
  bool wait_for_service = true;
  bool any_shape = false;  // blocks of any model may be offloaded, and none recalled; of `layout` counts `layers`
};

struct PodIdentity {
  std::string name;
  bool draining = false;  // it takes nothing new
};

class FetchedValues;

class RemoteCache final : public BlockCache, public ManifestStore {
 public:
  // Does not wait for the service: it may come later. InvalidArgument naming the option.
  static absl::StatusOr<std::unique_ptr<RemoteCache>> Connect(RemoteCacheOptions options);
  // Fails what is not done (Unavailable) and closes the streams.
  ~RemoteCache() override;

  absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) override;
  void Offload(BlockId id, std::string value, OffloadOptions options, std::function<void(absl::Status)> done) override;
  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done) override;
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      const ReadTerms& terms) override;
  BlockCacheStats Stats() const override;

  // What a client of several services needs beside the interface (cacheservice/shards).

  // As Offload, but the value comes back when it was not stored: ResourceExhausted when the write-behind buffer is
  // full, Unavailable when the service is away or takes nothing. `now`: queued also past write_behind_bytes.
  void OffloadOrReturn(BlockId id, std::string value, OffloadOptions options, bool now,
                       std::function<void(absl::Status, std::string value)> done);
  // Whether the keys have their blocks of all layers stored; they need not be a chain. kSlow: in a tier that is left
  // out.
  enum class Stored : uint8_t { kNo, kSlow, kYes };
  absl::StatusOr<std::vector<Stored>> LookupEach(absl::Span<const BlockKey> keys, const ReadTerms& terms);
  absl::StatusOr<PodIdentity> Probe(absl::Time deadline);
  // Stores a manifest that is stored elsewhere: replaces any of a lower revision. Aborted: another of its revision is
  // there, or a higher one.
  absl::Status PutCopy(const SessionManifest& manifest, absl::Time deadline);
  // nullopt: no such session.
  absl::StatusOr<std::optional<int64_t>> Revision(std::string_view tenant, std::string_view session_id,
                                                  absl::Time deadline);
  // The service is given up for now: fails all calls and recalls under way and all that is queued. Streams connect
  // anew.
  void Interrupt();
  // It is there again: streams connect at once.
  void Resume();

  absl::Status Put(const SessionManifest& manifest, absl::Time deadline) override;
  absl::StatusOr<std::optional<SessionManifest>> Get(std::string_view tenant, std::string_view session_id,
                                                     absl::Time deadline) override;
  absl::Status Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) override;

 private:
  class Impl;
  absl::Status SendManifest(const SessionManifest& manifest, bool copy, absl::Time deadline);
  absl::StatusOr<FetchedValues> FetchOnce(absl::Span<const BlockId> ids, bool unchecked, const ReadTerms& terms);
  absl::StatusOr<std::optional<SessionManifest>> GetOnce(std::string_view tenant, std::string_view session_id,
                                                         absl::Time deadline);
  absl::StatusOr<std::optional<int64_t>> RevisionOnce(std::string_view tenant, std::string_view session_id,
                                                      absl::Time deadline);
  explicit RemoteCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_REMOTE_CACHE_H_
