#include "cacheservice/tiers/disk_index.h"

#include <algorithm>

#include "base/check.h"

namespace tidepool {
namespace {

// Of one look for values that nobody uses.
constexpr int kMostLooked = 4096;
constexpr uint64_t kMostUsedBytes = uint64_t{4} << 20;  // at least one value

}  // namespace

std::optional<DiskIndex::Location> DiskIndex::Find(const BlockId& id) const {
  const auto found = locations_.find(id);
  if (found == locations_.end()) return std::nullopt;
  return found->second;
}

void DiskIndex::Discount(const Location& location) {
  Usage& usage = usage_[location.tenant];
  usage.bytes -= location.cost_bytes;
  --usage.objects;
}

int64_t DiskIndex::Add(const BlockId& id, const Location& location, Observer dropped) {
  TIDEPOOL_CHECK(location.sequence >= next_sequence_);
  next_sequence_ = location.sequence + 1;
  records_.push_back(
      {.sequence = location.sequence, .id = id, .cost_bytes = location.cost_bytes, .written = location.used});
  bytes_ += location.cost_bytes;
  const auto [at, is_new] = locations_.try_emplace(id, location);
  if (!is_new) {
    Discount(at->second);
    at->second = location;
  }
  Usage& usage = usage_[location.tenant];
  usage.bytes += location.cost_bytes;
  ++usage.objects;
  return DropOldest(dropped);
}

int64_t DiskIndex::SetLimit(uint64_t limit_bytes, Observer dropped) {
  limit_bytes_ = limit_bytes;
  return DropOldest(dropped);
}

int64_t DiskIndex::DropOldest(Observer dropped) {
  int64_t count = 0;
  while (bytes_ > limit_bytes_ && records_.size() > 1) {
    const Record& oldest = records_.front();
    const bool copied = oldest.sequence <= mark_;
    if (Forget(oldest.id, oldest.sequence)) {
      ++count;
      dropped(oldest.id);
      if (!copied) ++dropped_uncopied_;
    }
    PopOldest();
  }
  return count;
}

void DiskIndex::PopOldest() {
  const Record& oldest = records_.front();
  bytes_ -= oldest.cost_bytes;
  if (oldest.sequence <= mark_) copied_bytes_ -= oldest.cost_bytes;
  records_.pop_front();
}

const DiskIndex::Location* DiskIndex::Current(const Record& record) const {
  const auto found = locations_.find(record.id);
  return found != locations_.end() && found->second.sequence == record.sequence ? &found->second : nullptr;
}

bool DiskIndex::Use(const BlockId& id, uint32_t when) {
  const auto found = locations_.find(id);
  if (found == locations_.end()) return false;
  found->second.used = std::max(found->second.used, when);
  return true;
}

DiskIndex::Aged DiskIndex::Expire(uint32_t until, absl::FunctionRef<bool(const BlockId&)> in_use, Observer expired) {
  Aged aged;
  uint64_t used_bytes = 0;
  int looked = 0;
  for (const Record& record : records_) {
    if (record.written > until) break;
    if (looked++ == kMostLooked || used_bytes >= kMostUsedBytes) {
      aged.more = true;
      break;
    }
    const Location* const location = Current(record);
    if (location == nullptr) continue;
    if (location->used > until || in_use(record.id)) {
      aged.used.push_back({.id = record.id, .location = *location});
      used_bytes += record.cost_bytes;
      continue;
    }
    Forget(record.id, record.sequence);
    ++aged.expired;
    expired(record.id);
  }
  while (!records_.empty() && records_.front().written <= until && Current(records_.front()) == nullptr) PopOldest();
  return aged;
}

bool DiskIndex::Forget(const BlockId& id, uint64_t sequence) {
  const auto found = locations_.find(id);
  if (found == locations_.end() || found->second.sequence != sequence) return false;
  Discount(found->second);
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

std::vector<DiskIndex::Recent> DiskIndex::RecentVolatile(uint64_t bytes) const {
  std::vector<Recent> recent;
  uint64_t passed = 0;
  for (auto record = records_.rbegin(); record != records_.rend() && passed < bytes; ++record) {
    passed += record->cost_bytes;
    const Location* const location = Current(*record);
    if (location == nullptr || location->durable) continue;
    recent.push_back({.id = record->id, .sequence = record->sequence});
  }
  return recent;
}

bool DiskIndex::LeavesSoon(const Location& location) const {
  const bool nearly_full = bytes_ > limit_bytes_ - limit_bytes_ / 4;
  return nearly_full && location.sequence - first_sequence() < (next_sequence_ - first_sequence()) / 2;
}

std::deque<DiskIndex::Record>::const_iterator DiskIndex::FirstUncopied() const {
  return std::upper_bound(records_.begin(), records_.end(), mark_,
                          [](uint64_t sequence, const Record& record) { return sequence < record.sequence; });
}

uint64_t DiskIndex::backlog_bytes() const {
  // The oldest records of so many bytes make room for half of the limit.
  const uint64_t due = bytes_ > limit_bytes_ / 2 ? bytes_ - limit_bytes_ / 2 : 0;
  return due > copied_bytes_ ? due - copied_bytes_ : 0;
}

std::vector<BlockId> DiskIndex::LeavingNext(uint64_t most_bytes, uint64_t* mark) const {
  *mark = 0;
  std::vector<BlockId> ids;
  auto next = FirstUncopied();
  const uint64_t due = backlog_bytes();
  for (uint64_t passed = 0, taken = 0; next != records_.end() && passed < due && taken < most_bytes; ++next) {
    passed += next->cost_bytes;
    *mark = next->sequence;
    if (Current(*next) == nullptr) continue;
    ids.push_back(next->id);
    taken += next->cost_bytes;
  }
  return ids;
}

void DiskIndex::MarkCopied(uint64_t mark) {
  for (auto next = FirstUncopied(); next != records_.end() && next->sequence <= mark; ++next) {
    copied_bytes_ += next->cost_bytes;
  }
  mark_ = std::max(mark_, mark);
}

void DiskIndex::SkipTo(uint64_t next_sequence) { next_sequence_ = std::max(next_sequence_, next_sequence); }

size_t DiskIndex::bytes_of_memory() const {
  // flat_hash_map: capacity slots and one control byte each.
  return records_.size() * sizeof(Record) + locations_.capacity() * (sizeof(decltype(locations_)::value_type) + 1);
}

}  // namespace tidepool
