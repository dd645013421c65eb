#include "cacheservice/tiers/memory_tier.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "base/check.h"

namespace tidepool {
namespace {

constexpr uint64_t kMinShardBytes = uint64_t{64} << 20;  // eight values of the largest size allowed
constexpr uint64_t kMaxShards = 16;
// std::string with its shared count (one allocation of 48 bytes and the allocator's 16), two slots of the hash table
// (id, slot number, control byte), a node of the policy.
constexpr size_t kValueOverheadBytes = 64 + 2 * 26 + 16;

}  // namespace

size_t MemoryTier::CostBytes(const std::string& value) {
  return value.capacity() + kValueOverheadBytes + sizeof(Entry);
}

MemoryTier::MemoryTier(uint64_t limit_bytes, EvictionHandler on_evict, const PolicyFactory& make_policy)
    : on_evict_(std::move(on_evict)) {
  const uint64_t shards = std::clamp<uint64_t>(limit_bytes / kMinShardBytes, 1, kMaxShards);
  for (uint64_t i = 0; i < shards; ++i) {
    auto shard = std::make_unique<Shard>();
    shard->limit_bytes = limit_bytes / shards;
    MutexLock lock(&shard->mutex);
    shard->policy = make_policy();
    shards_.push_back(std::move(shard));
  }
}

MemoryTier::Shard& MemoryTier::ShardOf(const BlockId& id) const {
  // The hash table of a shard uses the low bits of the same hash.
  return *shards_[(absl::Hash<BlockId>()(id) >> 32) % shards_.size()];
}

void MemoryTier::Release(Shard& shard, uint32_t slot) {
  Entry& entry = shard.entries[slot];
  shard.policy->Remove(slot);
  shard.slots.erase(entry.id);
  shard.stats.bytes -= entry.cost_bytes;
  --shard.stats.objects;
  if (entry.pins > 0) {
    shard.pinned_bytes -= entry.cost_bytes;
    --shard.pinned_objects;
  }
  entry = Entry{};
  shard.free_slots.push_back(slot);
}

void MemoryTier::MakeRoom(Shard& shard, size_t cost_bytes, Evicted* evicted) {
  while (shard.stats.bytes + cost_bytes > shard.limit_bytes) {
    const std::optional<uint32_t> victim = shard.policy->Victim(
        [&shard](uint32_t slot) ABSL_NO_THREAD_SAFETY_ANALYSIS { return shard.entries[slot].pins == 0; });
    TIDEPOOL_CHECK(victim.has_value());  // the caller saw that what is pinned leaves room
    Entry& entry = shard.entries[*victim];
    if (on_evict_) shard.leaving[entry.id] = entry.value;
    evicted->emplace_back(entry.id, std::move(entry.value));
    Release(shard, *victim);
    ++shard.stats.evictions;
  }
}

void MemoryTier::Insert(Shard& shard, const BlockId& id, BlockValue value, size_t cost_bytes) {
  uint32_t slot = static_cast<uint32_t>(shard.entries.size());
  if (shard.free_slots.empty()) {
    shard.entries.emplace_back();
  } else {
    slot = shard.free_slots.back();
    shard.free_slots.pop_back();
  }
  shard.entries[slot] = {.id = id, .value = std::move(value), .cost_bytes = cost_bytes, .pins = 0};
  shard.slots[id] = slot;
  shard.policy->Insert(slot);
  shard.stats.bytes += cost_bytes;
  ++shard.stats.objects;
  ++shard.stats.puts;
}

MemoryTier::PutResult MemoryTier::Put(const BlockId& id, BlockValue value, bool pin) {
  TIDEPOOL_CHECK(value != nullptr);
  const size_t cost_bytes = CostBytes(*value);
  Shard& shard = ShardOf(id);
  Evicted evicted;
  {
    MutexLock lock(&shard.mutex);
    const auto found = shard.slots.find(id);
    if (found != shard.slots.end()) {
      if (pin && PinSlot(shard, found->second) != PinResult::kPinned) return PutResult::kNoRoom;
      shard.policy->Touch(found->second);
      ++shard.stats.repeated_puts;
      return PutResult::kRepeated;
    }
    const uint64_t pinnable = pin ? shard.limit_bytes / 2 : shard.limit_bytes;
    if (shard.pinned_bytes + cost_bytes > pinnable) return PutResult::kNoRoom;
    MakeRoom(shard, cost_bytes, &evicted);
    Insert(shard, id, std::move(value), cost_bytes);
    if (pin) TIDEPOOL_CHECK(PinSlot(shard, shard.slots[id]) == PinResult::kPinned);
  }
  if (on_evict_ && !evicted.empty()) {
    for (const auto& [evicted_id, evicted_value] : evicted) on_evict_(evicted_id, evicted_value);
    MutexLock lock(&shard.mutex);
    for (const auto& [evicted_id, evicted_value] : evicted) shard.leaving.erase(evicted_id);
  }
  return PutResult::kStored;
}

BlockValue MemoryTier::Get(const BlockId& id) {
  Shard& shard = ShardOf(id);
  MutexLock lock(&shard.mutex);
  const auto found = shard.slots.find(id);
  if (found != shard.slots.end()) {
    shard.policy->Touch(found->second);
    ++shard.stats.hits;
    return shard.entries[found->second].value;
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
  MutexLock lock(&shard.mutex);
  const auto found = shard.slots.find(id);
  if (found != shard.slots.end()) Release(shard, found->second);
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
    sum.limit_bytes += shard->limit_bytes;
    sum.bytes += shard->stats.bytes;
    sum.objects += shard->stats.objects;
    sum.hits += shard->stats.hits;
    sum.misses += shard->stats.misses;
    sum.puts += shard->stats.puts;
    sum.repeated_puts += shard->stats.repeated_puts;
    sum.evictions += shard->stats.evictions;
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
