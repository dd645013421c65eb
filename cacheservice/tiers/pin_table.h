// Pins that people ask for by name (CacheAdmin.Pin): the blocks of a session or a prefix stay in memory until the pin
// is taken away or expires, up to a limit in bytes for each tenant. They outlive a restart, as far as their blocks do.
// Thread-safe.
//
//   family meta   "pin." ++ kind (1: s or p) ++ tenant ++ zero byte ++ name
//                 ->  format (1) ++ expiry, Unix ms (8, little endian; 0: none) ++ block keys (16 each)
#ifndef TIDEPOOL_CACHESERVICE_TIERS_PIN_TABLE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_PIN_TABLE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "cacheservice/api/block_cache.h"

namespace tidepool {

class Database;
class TieredStore;

struct PinName {
  std::string tenant;
  bool is_session = false;
  std::string name;  // of the session, or of the prefix
  friend auto operator<=>(const PinName&, const PinName&) = default;
};

struct PinInfo {
  PinName name;
  int64_t blocks = 0;
  int64_t objects = 0;         // values, one for each block and layer
  uint64_t bytes = 0;          // of them
  int64_t missing_blocks = 0;  // that are not stored
  absl::Time expires = absl::InfiniteFuture();
};

class PinTable {
 public:
  static constexpr size_t kMostPins = 4096;
  static constexpr size_t kMostBlocks = 65'536;  // of one pin

  // Both outlive the table. Pins again what was pinned. DataLoss: an entry cannot be read.
  static absl::StatusOr<std::unique_ptr<PinTable>> Open(TieredStore* blocks, Database* database,
                                                        std::function<absl::Time()> clock = absl::Now);
  // The blocks are unpinned; the entries stay in the database.
  ~PinTable();
  PinTable(const PinTable&) = delete;
  PinTable& operator=(const PinTable&) = delete;

  // Pins the blocks that are stored; a pin of that name goes. InvalidArgument naming the field. NotFound: none of them
  // is stored. ResourceExhausted, with nothing pinned: past the tenant's limit, or half of memory is pinned.
  absl::StatusOr<PinInfo> Pin(const PinName& name, absl::Span<const BlockKey> keys, absl::Time expires);
  // NotFound.
  absl::Status Unpin(const PinName& name);
  // Of one tenant, or (empty) of all.
  std::vector<PinInfo> List(std::string_view tenant) const;
  // Takes away what has expired; the table does so by itself.
  void Expire();

 private:
  struct Entry {
    PinInfo info;
    std::vector<BlockKey> keys;
    std::vector<BlockId> pinned;
  };

  PinTable(TieredStore* blocks, Database* database, std::function<absl::Time()> clock);
  absl::Status Load();
  absl::StatusOr<Entry> PinBlocks(const PinName& name, absl::Span<const BlockKey> keys, uint64_t most_bytes);
  void Release(const Entry& entry);
  uint64_t LimitOf(std::string_view tenant) const;
  uint64_t BytesOf(std::string_view tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run();

  TieredStore* const blocks_;
  Database* const database_;
  const std::function<absl::Time()> clock_;
  mutable Mutex mutex_;  // held while blocks are read to be pinned: one pin at a time
  CondVar changed_;
  std::map<PinName, Entry> pins_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // waits for the next expiry
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_PIN_TABLE_H_
