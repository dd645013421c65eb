// What a cache keeps in one data directory: the database, the block tiers and the session manifests over it. Used as it
// is by the service and by EmbeddedCache.
#ifndef TIDEPOOL_CACHESERVICE_EMBEDDED_CACHE_STORAGE_H_
#define TIDEPOOL_CACHESERVICE_EMBEDDED_CACHE_STORAGE_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cacheservice/manifests/manifest_store_disk.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/cache_options.h"
#include "cacheservice/tiers/pin_table.h"
#include "cacheservice/tiers/tiered_store.h"

namespace tidepool {

struct CacheStorage {
  // Declared in the order of construction: the database goes last.
  std::unique_ptr<Database> database;
  std::unique_ptr<TieredStore> blocks;
  std::unique_ptr<PinTable> pins;
  std::unique_ptr<DiskManifestStore> manifests;

  // InvalidArgument as CacheOptions::Validate; FailedPrecondition when another process has the directory open, or its
  // format is of another version; else the error of the disk, with the directory's name.
  // `clock` dates uses and manifests.
  static absl::StatusOr<CacheStorage> Open(const CacheOptions& options, std::function<absl::Time()> clock = absl::Now);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_EMBEDDED_CACHE_STORAGE_H_
