// Block values in the database, up to a limit in bytes, dropped oldest first (docs/decisions/0004-disk-tier.md).
//
//   family block_values   sequence, block key and layer  ->  block value
//   family block_index    sequence  ->  block key, layer, value size, when it was written, tenant
//   family meta           "blocks.first_sequence"  ->  sequence: what is below is dropped
//
// Bytes: disk_records.h. Keys ascend with age, so files hold ranges of ages: nothing is ever rewritten, and the oldest
// go file by file. (Where unused values leave, what was used since is stored anew, among the newest.) The id is part of
// the value's key: an index entry can never lead to another block's bytes. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_DISK_TIER_H_
#define TIDEPOOL_CACHESERVICE_TIERS_DISK_TIER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/block_value.h"
#include "cacheservice/tiers/departure_log.h"
#include "cacheservice/tiers/disk_index.h"
#include "cacheservice/tiers/tenant_table.h"
#include "cacheservice/tiers/tier_stats.h"

namespace tidepool {

struct DiskPut {
  BlockId id;
  BlockValue value;
  TenantId tenant = kNoTenant;
  uint64_t renews = 0;  // the sequence at which it is there and in whose place it is stored anew; 0: a put
};

class DiskTier {
 public:
  // `database` outlives the tier. `disk_bytes` is for files of all kinds: the values get what ReserveBytes leaves.
  // `tenants`: whose values they are; null: nobody keeps account. `departures`: is told of what goes; may be null. Both
  // outlive the tier. `owner`: the only tenant whose values it holds; what is dropped is dropped for his quota. `clock`
  // dates what is written and read.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Open(Database* database, uint64_t disk_bytes,
                                                        TenantTable* tenants = nullptr,
                                                        DepartureLog* departures = nullptr, TenantId owner = kNoTenant,
                                                        std::function<absl::Time()> clock = absl::Now);

  // Size of a memtable for a tier of this size, and what log, memtables and half-dropped files may take beside the
  // values.
  static uint64_t WriteBufferBytes(uint64_t disk_bytes);
  static uint64_t ReserveBytes(uint64_t disk_bytes) { return 8 * WriteBufferBytes(disk_bytes); }
  // What a value of this size counts: itself, the keys and entries of both families, its share of file indexes.
  static uint64_t CostBytes(size_t value_bytes) { return value_bytes + 160; }

  // Stores values; with `durable` they survive a crash once this returns. Calls that come together are written together
  // and share a sync. A value that is there already is not written again, unless it is to become durable or would leave
  // soon. One status per put: ResourceExhausted when the disk takes no writes or a value is larger than a quarter of
  // the tier.
  std::vector<absl::Status> Put(absl::Span<const DiskPut> puts, bool durable);

  // Null: a miss, also when the value was there but its checksums differ (it is dropped then). Unavailable: the disk
  // could not be read.
  std::vector<absl::StatusOr<BlockValue>> Get(absl::Span<const BlockId> ids);

  // Reads and verifies values without counting hits: what is damaged is dropped. Statuses as those of Get, each with
  // the bytes read (0: it was not there, or is not any more).
  std::vector<absl::StatusOr<uint64_t>> Verify(absl::Span<const BlockId> ids);

  // Values that nobody has written, put again or read for so long leave, as far as one short look goes; those used
  // since they were written are stored anew when that long has passed, as durable as they were. What was there when the
  // tier was opened counts as used when it was written. `in_use`: whether somebody has used a value since, without this
  // tier. Called with the tier's lock. True: more is to be looked at now.
  using InUse = absl::FunctionRef<bool(const BlockId& id, absl::Time since)>;
  bool ExpireSome(absl::Duration ttl, InUse in_use);
  // Values, all layers of the blocks that are there, were used otherwise than by reading them here.
  void Use(absl::Span<const BlockKey> keys, absl::Time when);

  bool Contains(const BlockId& id);
  // Whether Put, not durable, would find it there and do nothing. Counted as Put counts it. Never reads the disk: false
  // while that would have to be asked.
  bool Repeats(const BlockId& id);
  // Whose value; nullopt: it is not there.
  std::optional<TenantId> TenantOf(const BlockId& id);
  // All ids, or those that were put durable; what was there when the tier was opened counts as durable.
  std::vector<BlockId> Ids(bool durable_only);

  // For one who copies values elsewhere before they are dropped: those of the older half that he has not marked as
  // copied, oldest first, some `most_bytes` of them (at least one value, unless there is none to copy).
  struct Leaving {
    std::vector<DiskPut> values;
    uint64_t mark = 0;  // for MarkCopied; 0: nothing is to be copied now
  };
  Leaving ReadLeaving(uint64_t most_bytes);
  // All up to `mark` are copied, or are not to be read again.
  void MarkCopied(uint64_t mark);
  struct CopyStats {
    uint64_t backlog_bytes = 0;  // of the older half, not marked
    uint64_t dropped = 0;        // values dropped without a mark
  };
  CopyStats copy_stats() const;
  // Called without a lock after each write. Set before the first Put.
  void OnWrite(std::function<void()> on_write) { on_write_ = std::move(on_write); }

  // Another size, from now on: what is too much is dropped. InvalidArgument as Open.
  absl::Status SetDiskBytes(uint64_t disk_bytes);

  TierStats Stats() const;
  absl::flat_hash_map<TenantId, DiskIndex::Usage> UsageByTenant() const;
  uint64_t writes() const;  // to the database, of one or more puts
  size_t index_memory_bytes() const;

 private:
  // A call of Put that waits to be written, by itself or by the call that writes at the moment.
  struct Pending {
    absl::Span<const DiskPut> puts;
    bool durable;
    std::vector<absl::Status> results;
    bool done = false;
  };
  struct Planned;

  DiskTier(Database* database, uint64_t limit_bytes, uint64_t write_buffer_bytes, TenantTable* tenants,
           DepartureLog* departures, TenantId owner, std::function<absl::Time()> clock);
  absl::Status Load();
  // All entries that can be read. The blocks that damage hides count as corrupt; the others are none the worse for it.
  absl::Status LoadIndex(uint64_t first_sequence) ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<Pending*> TakeGroup() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteGroup(const std::vector<Pending*>& group) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Plan(const DiskPut& put, bool durable, uint32_t now, std::vector<Planned>* planned)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WritePlanned(absl::Span<const Planned> planned, bool durable) ABSL_LOCKS_EXCLUDED(mutex_);
  void TrimFiles() ABSL_LOCKS_EXCLUDED(mutex_);
  // False: not all of them could be read and stored.
  bool Renew(const std::vector<DiskIndex::Used>& used) ABSL_LOCKS_EXCLUDED(mutex_);
  uint32_t Now() const;  // Unix seconds
  // Values that the index has and the files do not, because a disk failed before they were in files. Who asks whether a
  // value is there is told so only after this, else it would not be stored again.
  void ForgetLost() ABSL_LOCKS_EXCLUDED(mutex_, forget_mutex_);
  void ForgetAgain() ABSL_LOCKS_EXCLUDED(forget_mutex_);
  // `counted`: as hits and misses.
  std::vector<absl::StatusOr<BlockValue>> Read(absl::Span<const BlockId> ids, bool counted);
  absl::StatusOr<BlockValue> ReadOne(const BlockId& id, bool counted);
  // What was read where it is said to be.
  absl::StatusOr<BlockValue> Accept(const BlockId& id, const DiskIndex::Location& at, Database::ReadResult read,
                                    bool counted);
  std::string TenantName(TenantId tenant) const;
  // After something was dropped from the index.
  void NoteDropped(const BlockId& id) const;
  bool MovedSince(const BlockId& id, const DiskIndex::Location& location, DiskIndex::Location* now) const;

  Database* const database_;
  const uint64_t write_buffer_bytes_;
  TenantTable* const tenants_;
  DepartureLog* const departures_;
  const TenantId owner_;
  const std::function<absl::Time()> clock_;
  std::function<void()> on_write_;
  Mutex forget_mutex_;                         // one ForgetLost at a time
  std::atomic<uint64_t> losses_forgotten_{0};  // of Database::losses
  std::atomic<bool> forget_again_{false};      // the index could not be read; the next Put tries again
  mutable Mutex mutex_;
  CondVar written_;
  DiskIndex index_ ABSL_GUARDED_BY(mutex_);
  std::deque<Pending*> waiting_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;  // one call writes a group; it alone adds to the index
  uint64_t trimmed_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t untrimmed_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // dropped from the index since files were last dropped
  uint64_t writes_ ABSL_GUARDED_BY(mutex_) = 0;
  TierStats stats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_DISK_TIER_H_
