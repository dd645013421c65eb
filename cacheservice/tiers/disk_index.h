// Which blocks the disk tier holds, where, and which of them are the oldest. Every stored value gets the next sequence
// number; values are dropped in that order, to make room or because nobody has used them for long. Kept in memory
// (about 115 bytes a block, see bytes_of_memory), rebuilt from the database when it is opened. Times are Unix seconds.
// Not thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_DISK_INDEX_H_
#define TIDEPOOL_CACHESERVICE_TIERS_DISK_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/tiers/tenant_table.h"

namespace tidepool {

class DiskIndex {
 public:
  struct Location {
    uint64_t sequence = 0;
    uint32_t cost_bytes = 0;
    uint32_t used = 0;  // when it was last written, put again or read
    bool durable = false;
    TenantId tenant = kNoTenant;
    friend bool operator==(const Location&, const Location&) = default;
  };

  explicit DiskIndex(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  std::optional<Location> Find(const BlockId& id) const;

  // Adds a value that is stored under `location`, whose sequence is the highest so far, at the time `used`. A value of
  // the same id that was there is replaced; its bytes count until they are the oldest. Returns how many values were
  // dropped to stay within the limit, each of which `dropped` sees.
  using Observer = absl::FunctionRef<void(const BlockId&)>;
  int64_t Add(const BlockId& id, const Location& location, Observer dropped = IgnoreDropped);
  // Another limit, from now on. Returns as Add.
  int64_t SetLimit(uint64_t limit_bytes, Observer dropped = IgnoreDropped);

  // The value was used; nothing happens when it is not there.
  bool Use(const BlockId& id, uint32_t when);

  // What was written at `until` or before, oldest first: takes out what nobody has used since. `in_use`: somebody uses
  // it although this index has not been told. What was used stays, and keeps those behind it from making room: they
  // are to be stored anew. Looks at some thousand values at a time.
  struct Used {
    BlockId id;
    Location location;
  };
  struct Aged {
    int64_t expired = 0;
    std::vector<Used> used;
    bool more = false;  // that have not been looked at
  };
  Aged Expire(uint32_t until, absl::FunctionRef<bool(const BlockId&)> in_use, Observer expired = IgnoreDropped);

  // Takes out a value that cannot be read. Its bytes count until they are the oldest. False: it is not there any more.
  bool Forget(const BlockId& id, uint64_t sequence);

  // All ids, or those that were stored durably.
  std::vector<BlockId> Ids(bool durable_only) const;

  // Of the newest records, that sum to so many bytes, those that were not stored durably, newest first.
  struct Recent {
    BlockId id;
    uint64_t sequence;
  };
  std::vector<Recent> RecentVolatile(uint64_t bytes) const;

  // The value is in the older half and the tier nearly full: it leaves soon, so storing it anew is worth a write.
  bool LeavesSoon(const Location& location) const;

  // Copying ahead of what is dropped. Due are the values that half of the limit, written anew, would drop. Those after
  // the mark, oldest first, until they sum to `most_bytes`; `mark`: what to mark when they are copied, 0 when none is
  // due.
  std::vector<BlockId> LeavingNext(uint64_t most_bytes, uint64_t* mark) const;
  void MarkCopied(uint64_t mark);
  uint64_t backlog_bytes() const;                                  // due and not marked
  uint64_t dropped_uncopied() const { return dropped_uncopied_; }  // values

  uint64_t limit_bytes() const { return limit_bytes_; }
  uint64_t bytes() const { return bytes_; }  // never above the limit, unless one value alone is
  size_t objects() const { return locations_.size(); }
  struct Usage {
    uint64_t bytes = 0, objects = 0;  // of values that are there
  };
  const absl::flat_hash_map<TenantId, Usage>& usage() const { return usage_; }
  uint64_t first_sequence() const { return records_.empty() ? next_sequence_ : records_.front().sequence; }
  uint64_t next_sequence() const { return next_sequence_; }
  void SkipTo(uint64_t next_sequence);  // not backwards
  size_t bytes_of_memory() const;

 private:
  struct Record {
    uint64_t sequence;
    BlockId id;
    uint32_t cost_bytes;
    uint32_t written;
  };

  static void IgnoreDropped(const BlockId&) {}
  int64_t DropOldest(Observer dropped);
  void PopOldest();
  // The value is where the record says; else it was replaced or forgotten. Null: so it was.
  const Location* Current(const Record& record) const;
  void Discount(const Location& location);
  std::deque<Record>::const_iterator FirstUncopied() const;

  uint64_t limit_bytes_;
  absl::flat_hash_map<BlockId, Location> locations_;
  std::deque<Record> records_;  // ascending sequence; those replaced or forgotten, too
  absl::flat_hash_map<TenantId, Usage> usage_;
  uint64_t bytes_ = 0;  // of records_
  uint64_t next_sequence_ = 1;
  uint64_t mark_ = 0;          // records up to this sequence are copied
  uint64_t copied_bytes_ = 0;  // of those among records_
  uint64_t dropped_uncopied_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_DISK_INDEX_H_
