#include "cacheservice/embedded/cache_storage.h"

#include <algorithm>

#include "base/log.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

// A worker reads the blocks of its own session from its device, so the disk does not see that they are used: they are
// when the session's turns are stored or read. Of turns before the start the manifests say when they were stored.
void KeepBlocksOfSessions(absl::Duration disk_ttl, const std::function<absl::Time()>& clock, CacheStorage& storage) {
  TieredStore* const blocks = storage.blocks.get();
  const absl::Status visited = storage.manifests->Visit(clock() - disk_ttl, [blocks](const SessionManifest& manifest) {
    blocks->NoteUse(manifest.block_keys, absl::FromUnixMillis(manifest.updated_unix_ms));
  });
  if (!visited.ok()) {
    TP_LOG(Error, "cache", "blocks of some sessions may leave the disk too early: ", visited.message());
  }
  storage.manifests->OnUse(
      [blocks, clock](const SessionManifest& manifest) { blocks->NoteUse(manifest.block_keys, clock()); });
}

}  // namespace

absl::StatusOr<CacheStorage> CacheStorage::Open(const CacheOptions& options, std::function<absl::Time()> clock) {
  TP_RETURN_IF_ERROR(options.Validate());
  CacheStorage storage;
  DatabaseOptions database;
  database.data_dir = options.data_dir;
  // What the database holds in memory counts against no tier: it stays small where the memory tier is.
  database.write_buffer_bytes = std::clamp<uint64_t>(options.memory_bytes / 4, uint64_t{1} << 20, uint64_t{32} << 20);
  TP_ASSIGN_OR_RETURN(storage.database, Database::Open(database));
  TP_ASSIGN_OR_RETURN(storage.blocks, TieredStore::Open(options, storage.database.get(), clock));
  TP_ASSIGN_OR_RETURN(storage.pins, PinTable::Open(storage.blocks.get(), storage.database.get(), clock));
  TP_ASSIGN_OR_RETURN(storage.manifests,
                      DiskManifestStore::Open(storage.database.get(), options.manifest_bytes, clock));
  if (options.disk_ttl > absl::ZeroDuration()) KeepBlocksOfSessions(options.disk_ttl, clock, storage);
  return storage;
}

}  // namespace tidepool
