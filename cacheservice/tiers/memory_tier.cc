#include "cacheservice/tiers/memory_tier.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "cacheservice/tiers/chain_policy.h"

namespace tidepool {
namespace {

constexpr uint64_t kMinShardBytes = uint64_t{64} << 20;  // eight values of the largest size allowed
constexpr uint64_t kMaxShards = 16;
// std::string with its shared count (one allocation of 48 bytes and the allocator's 16), two slots of the hash table
// (id, slot number, control byte), its place in the policy, and its block's, as if it had one layer.
constexpr size_t kValueOverheadBytes = 64 + 2 * 26 + 16 + ChainPolicy::kBlockBytes;

// The first bytes of a digest are as good a hash as any.
uint64_t HashOf(const BlockKey& key) {
  uint64_t hash;
  std::memcpy(&hash, key.bytes.data(), sizeof hash);
  return std::max<uint64_t>(hash, ChainPlace::kUnknown + 1);
}
uint64_t HashOfParent(const BlockKey& key) { return key == BlockKey{} ? ChainPlace::kUnknown : HashOf(key); }

}  // namespace

size_t MemoryTier::CostBytes(size_t value_bytes) { return value_bytes + kValueOverheadBytes + sizeof(Entry); }

MemoryTier::MemoryTier(uint64_t limit_bytes, EvictionHandler on_evict, const PolicyFactory& make_policy,
                       TenantTable* tenants, std::function<absl::Time()> clock)
    : on_evict_(std::move(on_evict)), tenants_(tenants), clock_(std::move(clock)) {
  const uint64_t shards = std::clamp<uint64_t>(limit_bytes / kMinShardBytes, 1, kMaxShards);
  for (uint64_t i = 0; i < shards; ++i) {
    auto shard = std::make_unique<Shard>();
    MutexLock lock(&shard->mutex);
    shard->limit_bytes = limit_bytes / shards;
    shard->policy = make_policy(shard->limit_bytes, shards == 1);
    shard->limit_bytes -= std::min<uint64_t>(shard->limit_bytes / 2, shard->policy->FixedBytes());
    shards_.push_back(std::move(shard));
  }
}

uint32_t MemoryTier::Now() const {
  return clock_ == nullptr ? 0 : static_cast<uint32_t>(std::max<int64_t>(absl::ToUnixSeconds(clock_()), 0));
}

MemoryTier::Shard& MemoryTier::ShardOf(uint64_t block_hash) const { return *shards_[block_hash % shards_.size()]; }
MemoryTier::Shard& MemoryTier::ShardOf(const BlockId& id) const { return ShardOf(HashOf(id.key)); }

void MemoryTier::Release(Shard& shard, uint32_t slot) {
  Entry& entry = shard.entries[slot];
  shard.policy->Remove(slot);
  shard.slots.erase(entry.id);
  shard.stats.bytes -= entry.cost_bytes;
  --shard.stats.objects;
  TenantUsage& usage = shard.tenants[entry.tenant];
  usage.bytes -= entry.cost_bytes;
  --usage.objects;
  if (entry.pins > 0) {
    shard.pinned_bytes -= entry.cost_bytes;
    --shard.pinned_objects;
  }
  entry = Entry{};
  shard.free_slots.push_back(slot);
}

void MemoryTier::Evict(Shard& shard, uint32_t slot, std::vector<Evicted>* evicted) {
  Entry& entry = shard.entries[slot];
  if (on_evict_) shard.leaving[entry.id] = entry.value;
  evicted->push_back({.id = entry.id, .value = std::move(entry.value), .tenant = entry.tenant});
  Release(shard, slot);
  ++shard.stats.evictions;
}

bool MemoryTier::MakeRoomOfHis(Shard& shard, TenantId tenant, size_t more_bytes, std::vector<Evicted>* evicted) {
  const uint64_t quota = tenants_ == nullptr ? 0 : tenants_->memory_quota(tenant);
  if (quota == 0) return true;
  while (shard.tenants[tenant].bytes + more_bytes > quota / shards_.size()) {
    const std::optional<uint32_t> victim =
        shard.policy->Victim([&shard, tenant](uint32_t slot) ABSL_NO_THREAD_SAFETY_ANALYSIS {
          return shard.entries[slot].pins == 0 && shard.entries[slot].tenant == tenant;
        });
    if (!victim.has_value()) return false;
    Evict(shard, *victim, evicted);
    tenants_->CountQuotaEvictions(tenant, 1);
  }
  return true;
}

void MemoryTier::MakeRoom(Shard& shard, size_t more_bytes, std::vector<Evicted>* evicted) {
  while (shard.stats.bytes + more_bytes > shard.limit_bytes) {
    const std::optional<uint32_t> victim = shard.policy->Victim(
        [&shard](uint32_t slot) ABSL_NO_THREAD_SAFETY_ANALYSIS { return shard.entries[slot].pins == 0; });
    TIDEPOOL_CHECK(victim.has_value());  // the caller saw that what is pinned leaves room
    Evict(shard, *victim, evicted);
  }
}

uint32_t MemoryTier::Insert(Shard& shard, const BlockId& id, BlockValue value, const PutOptions& options,
                            size_t cost_bytes) {
  uint32_t slot = static_cast<uint32_t>(shard.entries.size());
  if (shard.free_slots.empty()) {
    shard.entries.emplace_back();
  } else {
    slot = shard.free_slots.back();
    shard.free_slots.pop_back();
  }
  shard.entries[slot] = {.id = id,
                         .used = Now(),
                         .value = std::move(value),
                         .cost_bytes = cost_bytes,
                         .pins = 0,
                         .tenant = options.tenant};
  shard.slots[id] = slot;
  shard.policy->Insert(slot, {.block = HashOf(id.key), .parent = HashOfParent(options.parent)});
  TenantUsage& usage = shard.tenants[options.tenant];
  usage.bytes += cost_bytes;
  ++usage.objects;
  ++usage.puts;
  shard.stats.bytes += cost_bytes;
  ++shard.stats.objects;
  ++shard.stats.puts;
  return slot;
}

void MemoryTier::PassOn(const std::vector<ChainLink>& links) {
  for (const ChainLink& link : links) {
    Shard& shard = ShardOf(link.parent);
    MutexLock lock(&shard.mutex);
    shard.policy->Apply(link);
  }
}

void MemoryTier::Refer(absl::Span<const BlockKey> chain) {
  std::vector<std::vector<ChainPlace>> places(shards_.size());
  for (size_t i = 0; i < chain.size(); ++i) {
    const uint64_t hash = HashOf(chain[i]);
    places[hash % shards_.size()].push_back(
        {.block = hash, .parent = HashOfParent(i == 0 ? BlockKey{} : chain[i - 1])});
  }
  uint32_t new_blocks = 0;
  for (size_t i = 0; i < shards_.size(); ++i) {
    MutexLock lock(&shards_[i]->mutex);
    for (const ChainPlace& place : places[i]) new_blocks += !shards_[i]->policy->Remembers(place.block);
  }
  std::vector<ChainLink> links;
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (places[i].empty()) continue;
    MutexLock lock(&shards_[i]->mutex);
    shards_[i]->policy->Refer(places[i], new_blocks);
    for (const ChainLink& link : shards_[i]->policy->TakeLinks()) links.push_back(link);
  }
  PassOn(links);
}

void MemoryTier::HandOver(Shard& shard, const std::vector<Evicted>& evicted) {
  if (!on_evict_ || evicted.empty()) return;
  for (const Evicted& one : evicted) on_evict_(one.id, one.value, one.tenant);
  MutexLock lock(&shard.mutex);
  for (const Evicted& one : evicted) shard.leaving.erase(one.id);
}

MemoryTier::PutResult MemoryTier::Put(const BlockId& id, BlockValue value, const PutOptions& options) {
  TIDEPOOL_CHECK(value != nullptr);
  const size_t cost_bytes = CostBytes(*value);
  Shard& shard = ShardOf(id);
  std::vector<Evicted> evicted;
  std::vector<ChainLink> links;
  PutResult result = PutResult::kStored;
  {
    MutexLock lock(&shard.mutex);
    const auto found = shard.slots.find(id);
    if (found != shard.slots.end()) {
      if (options.pin && PinSlot(shard, found->second) != PinResult::kPinned) return PutResult::kNoRoom;
      shard.policy->Touch(found->second);
      shard.entries[found->second].used = Now();
      ++shard.stats.repeated_puts;
      return PutResult::kRepeated;
    }
    const uint64_t pinnable = options.pin ? shard.limit_bytes / 2 : shard.limit_bytes;
    if (shard.pinned_bytes + cost_bytes > pinnable) return PutResult::kNoRoom;
    if (MakeRoomOfHis(shard, options.tenant, cost_bytes, &evicted)) {
      // A policy that may refuse compares what is new with what is held. Nobody sees the limit exceeded meanwhile.
      if (!shard.policy->MayRefuse()) MakeRoom(shard, cost_bytes, &evicted);
      const uint32_t slot = Insert(shard, id, std::move(value), options, cost_bytes);
      if (options.pin) TIDEPOOL_CHECK(PinSlot(shard, slot) == PinResult::kPinned);
      MakeRoom(shard, 0, &evicted);
      if (!shard.slots.contains(id)) result = PutResult::kRefused;
    } else {
      result = PutResult::kNoRoom;
    }
    links = shard.policy->TakeLinks();
  }
  PassOn(links);
  HandOver(shard, evicted);
  return result;
}

bool MemoryTier::SetLimit(uint64_t limit_bytes) {
  for (const std::unique_ptr<Shard>& shard : shards_) {
    MutexLock lock(&shard->mutex);
    if (shard->pinned_bytes > limit_bytes / shards_.size() / 4) return false;
  }
  for (const std::unique_ptr<Shard>& shard : shards_) {
    std::vector<Evicted> evicted;
    std::vector<ChainLink> links;
    {
      MutexLock lock(&shard->mutex);
      const uint64_t limit = limit_bytes / shards_.size();
      // What was pinned since the look above stays.
      shard->limit_bytes =
          std::max(limit - std::min<uint64_t>(limit / 2, shard->policy->FixedBytes()), 2 * shard->pinned_bytes);
      MakeRoom(*shard, 0, &evicted);
      links = shard->policy->TakeLinks();
    }
    PassOn(links);
    HandOver(*shard, evicted);
  }
  return true;
}

MemoryTier::Held MemoryTier::Peek(const BlockId& id) const {
  const Shard& shard = ShardOf(id);
  MutexLock lock(&shard.mutex);
  const auto found = shard.slots.find(id);
  if (found == shard.slots.end()) return {};
  const Entry& entry = shard.entries[found->second];
  return {.value = entry.value, .tenant = entry.tenant, .pinned = entry.pins > 0};
}

absl::flat_hash_map<TenantId, MemoryTier::TenantUsage> MemoryTier::UsageByTenant() const {
  absl::flat_hash_map<TenantId, TenantUsage> sum;
  for (const std::unique_ptr<Shard>& shard : shards_) {
    MutexLock lock(&shard->mutex);
    for (const auto& [tenant, usage] : shard->tenants) {
      TenantUsage& to = sum[tenant];
      to.bytes += usage.bytes;
      to.objects += usage.objects;
      to.puts += usage.puts;
    }
  }
  return sum;
}

BlockValue MemoryTier::Get(const BlockId& id, Use use) {
  Shard& shard = ShardOf(id);
  MutexLock lock(&shard.mutex);
  const auto found = shard.slots.find(id);
  if (found != shard.slots.end()) {
    use == Use::kRows ? shard.policy->TouchRows(found->second) : shard.policy->Touch(found->second);
    ++shard.stats.hits;
    Entry& entry = shard.entries[found->second];
    if (clock_ != nullptr) entry.used = Now();
    return entry.value;
  }
  const auto leaving = shard.leaving.find(id);
  if (leaving != shard.leaving.end()) {
    ++shard.stats.hits;
    return leaving->second;
  }
  ++shard.stats.misses;
  return nullptr;
}

bool MemoryTier::Contains(const BlockId& id) const {
  const Shard& shard = ShardOf(id);
  MutexLock lock(&shard.mutex);
  return shard.slots.contains(id) || shard.leaving.contains(id);
}

bool MemoryTier::Touch(const BlockId& id) {
  Shard& shard = ShardOf(id);
  MutexLock lock(&shard.mutex);
  const auto found = shard.slots.find(id);
  if (found == shard.slots.end()) return shard.leaving.contains(id);
  shard.policy->Touch(found->second);
  return true;
}

bool MemoryTier::UsedSince(const BlockId& id, absl::Time time) const {
  const Shard& shard = ShardOf(id);
  MutexLock lock(&shard.mutex);
  const auto found = shard.slots.find(id);
  if (found == shard.slots.end()) return false;
  const Entry& entry = shard.entries[found->second];
  return entry.pins > 0 || int64_t{entry.used} > absl::ToUnixSeconds(time);
}

MemoryTier::PinResult MemoryTier::PinSlot(Shard& shard, uint32_t slot) {
  Entry& entry = shard.entries[slot];
  if (entry.pins == 0) {
    if (shard.pinned_bytes + entry.cost_bytes > shard.limit_bytes / 2) return PinResult::kTooMuchPinned;
    shard.pinned_bytes += entry.cost_bytes;
    ++shard.pinned_objects;
  }
  ++entry.pins;
  return PinResult::kPinned;
}

MemoryTier::PinResult MemoryTier::Pin(const BlockId& id) {
  Shard& shard = ShardOf(id);
  MutexLock lock(&shard.mutex);
  const auto found = shard.slots.find(id);
  return found == shard.slots.end() ? PinResult::kAbsent : PinSlot(shard, found->second);
}

void MemoryTier::Unpin(const BlockId& id) {
  Shard& shard = ShardOf(id);
  MutexLock lock(&shard.mutex);
  const auto found = shard.slots.find(id);
  if (found == shard.slots.end()) return;  // it was erased as corrupt, and its pins with it
  Entry& entry = shard.entries[found->second];
  if (entry.pins == 0 || --entry.pins > 0) return;
  shard.pinned_bytes -= entry.cost_bytes;
  --shard.pinned_objects;
}

void MemoryTier::Erase(const BlockId& id) {
  Shard& shard = ShardOf(id);
  std::vector<ChainLink> links;
  {
    MutexLock lock(&shard.mutex);
    const auto found = shard.slots.find(id);
    if (found == shard.slots.end()) return;
    Release(shard, found->second);
    links = shard.policy->TakeLinks();
  }
  PassOn(links);
}

std::vector<BlockId> MemoryTier::Ids(bool pinned_only) const {
  std::vector<BlockId> ids;
  for (const std::unique_ptr<Shard>& shard : shards_) {
    MutexLock lock(&shard->mutex);
    for (const auto& [id, slot] : shard->slots) {
      if (!pinned_only || shard->entries[slot].pins > 0) ids.push_back(id);
    }
  }
  return ids;
}

TierStats MemoryTier::Stats() const {
  TierStats sum;
  for (const std::unique_ptr<Shard>& shard : shards_) {
    MutexLock lock(&shard->mutex);
    sum += shard->stats;
    sum.limit_bytes += shard->limit_bytes;
  }
  return sum;
}

uint64_t MemoryTier::pinned_bytes() const {
  uint64_t bytes = 0;
  for (const std::unique_ptr<Shard>& shard : shards_) {
    MutexLock lock(&shard->mutex);
    bytes += shard->pinned_bytes;
  }
  return bytes;
}

uint64_t MemoryTier::pinned_objects() const {
  uint64_t objects = 0;
  for (const std::unique_ptr<Shard>& shard : shards_) {
    MutexLock lock(&shard->mutex);
    objects += shard->pinned_objects;
  }
  return objects;
}

}  // namespace tidepool
