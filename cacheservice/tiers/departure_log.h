// Why blocks that are not there any more have gone, for those who ask (CacheAdmin.Explain). Remembers the latest of
// some ten thousand blocks, in 2 MiB: a table in which a newer one overwrites an older one at the same place.
// Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_DEPARTURE_LOG_H_
#define TIDEPOOL_CACHESERVICE_TIERS_DEPARTURE_LOG_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "policies/kv/block_key.h"

namespace tidepool {

struct Departure {
  enum class Reason : uint8_t {
    kNone,     // nothing is remembered
    kRoom,     // dropped: the oldest on disk
    kQuota,    // dropped: its tenant's oldest, past his quota
    kCorrupt,  // a checksum differed
    kDisk,     // left memory and could not be written to disk
    kUnused,   // left the disk: nobody had used it for long
  };
  Reason reason = Reason::kNone;
  absl::Time when = absl::InfinitePast();
};

class DepartureLog {
 public:
  DepartureLog() : entries_(kEntries) {}
  void Note(const BlockKey& key, Departure::Reason reason);
  Departure Find(const BlockKey& key) const;

 private:
  static constexpr size_t kEntries = size_t{1} << 16;
  struct Entry {
    BlockKey key;
    uint32_t unix_seconds = 0;
    Departure::Reason reason = Departure::Reason::kNone;
  };
  static size_t PlaceOf(const BlockKey& key);

  mutable Mutex mutex_;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_DEPARTURE_LOG_H_
