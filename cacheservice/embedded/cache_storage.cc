#include "cacheservice/embedded/cache_storage.h"

#include <algorithm>

#include "base/status_macros.h"

namespace tidepool {

absl::StatusOr<CacheStorage> CacheStorage::Open(const CacheOptions& options) {
  TP_RETURN_IF_ERROR(options.Validate());
  CacheStorage storage;
  DatabaseOptions database;
  database.data_dir = options.data_dir;
  // What the database holds in memory counts against no tier: it stays small where the memory tier is.
  database.write_buffer_bytes = std::clamp<uint64_t>(options.memory_bytes / 4, uint64_t{1} << 20, uint64_t{32} << 20);
  TP_ASSIGN_OR_RETURN(storage.database, Database::Open(database));
  TP_ASSIGN_OR_RETURN(storage.blocks, TieredStore::Open(options, storage.database.get()));
  TP_ASSIGN_OR_RETURN(storage.pins, PinTable::Open(storage.blocks.get(), storage.database.get()));
  TP_ASSIGN_OR_RETURN(storage.manifests, DiskManifestStore::Open(storage.database.get(), options.manifest_bytes));
  return storage;
}

}  // namespace tidepool
