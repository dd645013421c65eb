#include "cacheservice/tiers/disk_index.h"

#include <algorithm>

#include "base/check.h"

namespace tidepool {

std::optional<DiskIndex::Location> DiskIndex::Find(const BlockId& id) const {
  const auto found = locations_.find(id);
  if (found == locations_.end()) return std::nullopt;
  return found->second;
}

int64_t DiskIndex::Add(const BlockId& id, const Location& location) {
  TIDEPOOL_CHECK(location.sequence >= next_sequence_);
  next_sequence_ = location.sequence + 1;
  records_.push_back({.sequence = location.sequence, .id = id, .cost_bytes = location.cost_bytes});
  bytes_ += location.cost_bytes;
  locations_[id] = location;
  int64_t dropped = 0;
  while (bytes_ > limit_bytes_ && records_.size() > 1) {
    const Record& oldest = records_.front();
    dropped += Forget(oldest.id, oldest.sequence) ? 1 : 0;
    bytes_ -= oldest.cost_bytes;
    records_.pop_front();
  }
  return dropped;
}

bool DiskIndex::Forget(const BlockId& id, uint64_t sequence) {
  const auto found = locations_.find(id);
  if (found == locations_.end() || found->second.sequence != sequence) return false;
  locations_.erase(found);
  return true;
}

std::vector<BlockId> DiskIndex::Ids(bool durable_only) const {
  std::vector<BlockId> ids;
  for (const auto& [id, location] : locations_) {
    if (!durable_only || location.durable) ids.push_back(id);
  }
  return ids;
}

bool DiskIndex::LeavesSoon(const Location& location) const {
  const bool nearly_full = bytes_ > limit_bytes_ - limit_bytes_ / 4;
  return nearly_full && location.sequence - first_sequence() < (next_sequence_ - first_sequence()) / 2;
}

void DiskIndex::SkipTo(uint64_t next_sequence) { next_sequence_ = std::max(next_sequence_, next_sequence); }

size_t DiskIndex::bytes_of_memory() const {
  // flat_hash_map: capacity slots and one control byte each.
  return records_.size() * sizeof(Record) + locations_.capacity() * (sizeof(decltype(locations_)::value_type) + 1);
}

}  // namespace tidepool
