// Block values over two tiers, memory in front and disk behind, and a third one where the options name it: an engine
// that many caches share. A value enters memory; what memory evicts is written to disk by one background thread through
// a bounded queue; the older half of a full disk is copied to the remote tier by another; what is read from below is
// copied back into memory. A durable put is on disk, synced, before it returns. Values are content-addressed, so a
// repeated put changes nothing but recency.
//
//   memory --evicted--> demotion queue --written--> disk --oldest, or unused for disk_ttl--> dropped
//     ^                                              | |
//     +---------------------promoted-----------------+ +--older half, copied--> remote
//     +--------------------------------promoted------------------------------------+
//
// A reader looks in that order, so a value on its way down is always found. Thread-safe; calls may wait for the disk,
// and for the remote tier by their deadline and its timeout.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_TIERED_STORE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_TIERED_STORE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/tiers/block_places.h"
#include "cacheservice/tiers/block_value.h"
#include "cacheservice/tiers/cache_options.h"
#include "cacheservice/tiers/tenant_stats.h"
#include "cacheservice/tiers/tier_stats.h"

namespace tidepool {

class Database;

enum class Tier : uint8_t { kMemory = 1, kDisk = 2 };

struct BlockPut {
  BlockId id;
  std::string value;
  bool durable = false;
  BlockKey parent = {};  // the block before it in its chain; all zero: the first, or not known
  std::string tenant;    // whose; empty: not known
};

class TieredStore {
 public:
  // `database` is open and outlives the store. Loads the disk tier's index (one sequential scan, no values). `clock`
  // says for how long values have not been used.
  static absl::StatusOr<std::unique_ptr<TieredStore>> Open(const CacheOptions& options, Database* database,
                                                           std::function<absl::Time()> clock = absl::Now);
  // Writes what waits for demotion, then closes.
  ~TieredStore();
  TieredStore(const TieredStore&) = delete;
  TieredStore& operator=(const TieredStore&) = delete;

  // Stores a value and says which tier holds it: kDisk for a durable one, else where it went. Waits while the demotion
  // queue is full. InvalidArgument: no block value, of another layer than id.layer, or too large. DataLoss: its
  // checksums differ. ResourceExhausted: it had to go to disk and the disk is full or read-only; nothing was stored.
  absl::StatusOr<Tier> Put(const BlockId& id, std::string value, bool durable);
  // The same for many: all durable ones share one sync. One result per put, in order.
  std::vector<absl::StatusOr<Tier>> PutMany(std::vector<BlockPut> puts);
  // Put without waiting for the disk. nullopt: that cannot be; nothing was done, and `put` is as it was.
  std::optional<absl::StatusOr<Tier>> PutAtOnce(BlockPut* put);

  // The value, or null: a miss. Unavailable only when the disk cannot be read and no other tier has the value.
  absl::StatusOr<BlockValue> Get(const BlockId& id);
  // The same for many, in order; disk and remote tier are read in batches. Blocks still to be read when the deadline
  // passes, or when the remote tier fails, are misses, and so are those in tiers that are slower than computing them.
  // kAsStored: what is in memory is not verified, for one who does.
  enum class Verify : uint8_t { kAll, kAsStored };
  absl::StatusOr<std::vector<BlockValue>> GetMany(absl::Span<const BlockId> ids,
                                                  const ReadTerms& terms = absl::InfiniteFuture(),
                                                  Verify verify = Verify::kAll);

  // The value, not verified, if it is in memory; null: that is for Get to say.
  BlockValue GetAtOnce(const BlockId& id);

  // Copies the rows asked for; each block is read once however many selections name it. Rows of blocks that are lost,
  // or not read by `deadline`, are left out. InvalidArgument: a kv head outside its block, or blocks with rows of
  // different sizes. DeadlineExceeded, Unavailable: nothing came for that reason.
  absl::StatusOr<RecalledRows> GatherRows(absl::Span<const RowSelection> selections,
                                          absl::Time deadline = absl::InfiniteFuture());

  // How many leading keys of the chain have layers 0 to layers - 1 stored. Tells memory's replacement that a request
  // wants this chain. Reads no value. What the remote tier has not said by the deadline is not stored; what is in tiers
  // that are slower than computing counts as slow, if it is on disk.
  PrefixHit LookupPrefix(absl::Span<const BlockKey> chain, int layers, const ReadTerms& terms = absl::InfiniteFuture());
  // Of which tiers reads are expected to take longer than computing takes who computes so much. Changes nothing.
  struct SlowTiers {
    bool disk = false, remote = false;
  };
  SlowTiers SlowFor(double compute_bytes_per_second) const;
  bool Contains(const BlockId& id) const;  // in memory or on disk
  // What somebody relies on: pinned values and those that were put durable. `all`: every value. At some moment during
  // the call; one on its way to disk may be left out.
  std::vector<BlockId> Ids(bool all) const;

  // A pinned value stays in memory until it is unpinned as often as it was pinned (promise P8). NotFound: not stored.
  // ResourceExhausted: more than half of the memory tier would be pinned.
  absl::Status Pin(const BlockId& id);
  void Unpin(const BlockId& id);

  // Where the blocks are; changes nothing. What the remote tier has not said by `deadline` is missing, and
  // `remote_asked` false then, and where there is none.
  std::vector<BlockPlace> Places(absl::Span<const BlockKey> keys, int layers, absl::Time deadline, bool* remote_asked);
  std::string TenantOf(const BlockId& id) const;  // empty: not known
  // Layers of the block that are in memory or on disk, from the first on.
  int CountLayers(const BlockKey& key) const;

  // Reads values in memory and on disk and verifies them; what is damaged is dropped.
  struct Scrubbed {
    uint64_t bytes = 0;       // read
    uint64_t corrupt = 0;     // values
    uint64_t unreadable = 0;  // the disk did not give them
  };
  Scrubbed Scrub(absl::Span<const BlockId> ids);

  // Sets a tenant's quotas (cacheservice/tiers/tenant_disks.h has the rules of the disk); they outlive a restart.
  absl::Status SetQuota(std::string_view tenant, const TenantQuota& quota);
  TenantQuota QuotaOf(std::string_view tenant) const;
  std::vector<TenantStats> Tenants() const;  // those that have values or a quota, by name

  // Other sizes of the tiers, from now on. InvalidArgument naming the range; FailedPrecondition: what is pinned, or
  // quotas of the disk, leave no room.
  absl::Status SetMemoryBytes(uint64_t memory_bytes);
  absl::Status SetDiskBytes(uint64_t disk_bytes);

  // With options.disk_ttl: takes from the disk what nobody has used for so long; the store does so by itself.
  void ExpireUnused();
  // Blocks on disk were used otherwise than by reading them: they are a session's that was.
  void NoteUse(absl::Span<const BlockKey> keys, absl::Time when);

  // Gives room on the disk back where that is cheap: Database::Compact.
  absl::Status Compact();

  // Returns when all that was put before is on disk: writes values that live in memory only, too (an orderly shutdown).
  absl::Status Drain();

  CacheStats Stats() const;

 private:
  class Impl;
  explicit TieredStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A pin for the length of a scope: a lease that ends with the stream that holds it.
class BlockLease {
 public:
  static absl::StatusOr<BlockLease> Take(TieredStore* store, const BlockId& id);
  BlockLease(BlockLease&& other) noexcept : store_(std::exchange(other.store_, nullptr)), id_(other.id_) {}
  BlockLease& operator=(BlockLease&&) = delete;
  ~BlockLease();

 private:
  BlockLease(TieredStore* store, const BlockId& id) : store_(store), id_(id) {}
  TieredStore* store_;
  BlockId id_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_TIERED_STORE_H_
