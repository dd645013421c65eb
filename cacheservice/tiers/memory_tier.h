// Block values in memory, up to a limit in bytes. Sharded by block: a shard has its own lock, limit and replacement
// policy, and all layers of its blocks. A reader shares the value, so an eviction never takes bytes from under it.
// Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_MEMORY_TIER_H_
#define TIDEPOOL_CACHESERVICE_TIERS_MEMORY_TIER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/tiers/block_value.h"
#include "cacheservice/tiers/replacement_policy.h"
#include "cacheservice/tiers/tenant_table.h"
#include "cacheservice/tiers/tier_stats.h"

namespace tidepool {

class MemoryTier {
 public:
  // Receives a value that has to leave, without a lock held; until it returns Get still finds the value, so a value on
  // its way to the next tier is never out of sight. May wait. Called from the thread that needs the room.
  using EvictionHandler = std::function<void(const BlockId& id, const BlockValue& value, TenantId tenant)>;
  // For a shard of so many bytes; `alone`: it is the only one.
  using PolicyFactory = std::function<std::unique_ptr<ReplacementPolicy>(uint64_t limit_bytes, bool alone)>;

  // What a value of this size costs: its bytes, the string and its reference count, its entry, its place in the hash
  // table (at 7/8 load after doubling: twice the slot) and in the policy.
  static size_t CostBytes(const std::string& value) { return CostBytes(value.capacity()); }
  static size_t CostBytes(size_t value_bytes);

  // Null handler: evicted values are gone. Shards: 1 for small limits, up to 16 for large ones, so that a shard holds
  // at least eight of the largest values. `tenants`: their quotas, each shard's part of them; null: none. Outlives the
  // tier. `clock`: tells when a value is used; null: nobody asks.
  MemoryTier(uint64_t limit_bytes, EvictionHandler on_evict, const PolicyFactory& make_policy,
             TenantTable* tenants = nullptr, std::function<absl::Time()> clock = nullptr);
  MemoryTier(const MemoryTier&) = delete;
  MemoryTier& operator=(const MemoryTier&) = delete;

  enum class PutResult : uint8_t {
    kStored,
    kRepeated,  // it was there: recency refreshed
    kRefused,   // the policy prefers all that are held: it has left already, like any other
    kNoRoom,    // larger than a shard, or what is pinned leaves no room; pinning: too much is pinned already
  };
  struct PutOptions {
    bool pin = false;  // also counts one pin, whether stored or repeated
    BlockKey parent =
        {};  // the block before it in its chain, where the caller knows; all zero: the first, or not known
    TenantId tenant = kNoTenant;  // past his quota his own least worthy values leave, nobody else's
  };
  PutResult Put(const BlockId& id, BlockValue value, const PutOptions& options);
  PutResult Put(const BlockId& id, BlockValue value) { return Put(id, std::move(value), PutOptions()); }

  // Tells the policies that a request looks for this chain of blocks, held or not.
  void Refer(absl::Span<const BlockKey> chain);

  enum class Use : uint8_t {
    kWhole,
    kRows,  // some rows of it, for an answer that its block belongs to
  };
  // Null: a miss. Counts, and refreshes recency.
  BlockValue Get(const BlockId& id, Use use = Use::kWhole);
  // Neither counts. Touch refreshes recency.
  bool Contains(const BlockId& id) const;
  bool Touch(const BlockId& id);
  struct Held {
    BlockValue value;  // null: not held
    TenantId tenant = kNoTenant;
    bool pinned = false;
  };
  Held Peek(const BlockId& id) const;

  // It is held, and pinned or put or read after `time`.
  bool UsedSince(const BlockId& id, absl::Time time) const;

  // A pinned value does not leave. At most half of a shard's limit can be pinned.
  enum class PinResult : uint8_t { kPinned, kAbsent, kTooMuchPinned };
  PinResult Pin(const BlockId& id);
  void Unpin(const BlockId& id);

  // Forgets a value (found corrupt), pinned or not.
  void Erase(const BlockId& id);

  // All ids, or those of pinned values, at some moment during the call.
  std::vector<BlockId> Ids(bool pinned_only = false) const;

  // Another limit, from now on: what is too much leaves. False, and nothing changes, when a quarter of a shard's part
  // is less than what is pinned there.
  bool SetLimit(uint64_t limit_bytes);

  TierStats Stats() const;
  struct TenantUsage {
    uint64_t bytes = 0, objects = 0;
    uint64_t puts = 0;  // values newly stored
  };
  absl::flat_hash_map<TenantId, TenantUsage> UsageByTenant() const;
  uint64_t pinned_bytes() const;
  uint64_t pinned_objects() const;

 private:
  struct Entry {
    BlockId id;
    uint32_t used = 0;  // Unix seconds, where there is a clock
    BlockValue value;   // null: the slot is free
    size_t cost_bytes = 0;
    uint32_t pins = 0;
    TenantId tenant = kNoTenant;
  };
  struct Shard {
    mutable Mutex mutex;
    uint64_t limit_bytes ABSL_GUARDED_BY(mutex) = 0;
    std::unique_ptr<ReplacementPolicy> policy ABSL_GUARDED_BY(mutex);
    absl::flat_hash_map<BlockId, uint32_t> slots ABSL_GUARDED_BY(mutex);
    std::vector<Entry> entries ABSL_GUARDED_BY(mutex);
    std::vector<uint32_t> free_slots ABSL_GUARDED_BY(mutex);
    absl::flat_hash_map<BlockId, BlockValue> leaving ABSL_GUARDED_BY(mutex);  // the handler has not returned yet
    TierStats stats ABSL_GUARDED_BY(mutex);
    absl::flat_hash_map<TenantId, TenantUsage> tenants ABSL_GUARDED_BY(mutex);
    uint64_t pinned_bytes ABSL_GUARDED_BY(mutex) = 0;
    uint64_t pinned_objects ABSL_GUARDED_BY(mutex) = 0;
  };
  struct Evicted {
    BlockId id;
    BlockValue value;
    TenantId tenant;
  };

  uint32_t Now() const;  // 0: there is no clock
  Shard& ShardOf(uint64_t block_hash) const;
  Shard& ShardOf(const BlockId& id) const;
  static PinResult PinSlot(Shard& shard, uint32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  static void Release(Shard& shard, uint32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  // Until what is held and `more_bytes` fit.
  void MakeRoom(Shard& shard, size_t more_bytes, std::vector<Evicted>* evicted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  // Until `more_bytes` of the tenant's are within his quota. False: what of his is pinned does not leave so much.
  bool MakeRoomOfHis(Shard& shard, TenantId tenant, size_t more_bytes, std::vector<Evicted>* evicted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  void Evict(Shard& shard, uint32_t slot, std::vector<Evicted>* evicted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  uint32_t Insert(Shard& shard, const BlockId& id, BlockValue value, const PutOptions& options, size_t cost_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  // Without a lock held.
  void HandOver(Shard& shard, const std::vector<Evicted>& evicted) ABSL_LOCKS_EXCLUDED(shard.mutex);
  // Without a lock held.
  void PassOn(const std::vector<ChainLink>& links);

  const EvictionHandler on_evict_;
  TenantTable* const tenants_;
  const std::function<absl::Time()> clock_;
  std::vector<std::unique_ptr<Shard>> shards_;  // fixed at construction
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_MEMORY_TIER_H_
