// How values that nobody uses leave the disk, and what is used stays.
#include <algorithm>
#include <utility>
#include <vector>

#include "cacheservice/tiers/disk_tier.h"

namespace tidepool {
namespace {

constexpr size_t kKeysAtOnce = 256;  // with the lock held
constexpr int kMaxLayers = 1024;

uint32_t UnixSeconds(absl::Time time) { return static_cast<uint32_t>(std::max<int64_t>(absl::ToUnixSeconds(time), 0)); }

}  // namespace

uint32_t DiskTier::Now() const { return UnixSeconds(clock_()); }

void DiskTier::Use(absl::Span<const BlockKey> keys, absl::Time when) {
  const uint32_t seconds = UnixSeconds(when);
  for (size_t first = 0; first < keys.size(); first += kKeysAtOnce) {
    MutexLock lock(&mutex_);
    for (const BlockKey& key : keys.subspan(first, kKeysAtOnce)) {
      for (int layer = 0; layer < kMaxLayers && index_.Use({key, layer}, seconds); ++layer) {
      }
    }
  }
}

bool DiskTier::ExpireSome(absl::Duration ttl, InUse in_use) {
  ForgetLost();
  const absl::Time since = clock_() - ttl;
  DiskIndex::Aged aged;
  bool trim = false;
  {
    MutexLock lock(&mutex_);
    const uint64_t bytes_before = index_.bytes();
    aged = index_.Expire(
        UnixSeconds(since), [&in_use, since](const BlockId& id) { return in_use(id, since); },
        [this](const BlockId& id) {
          if (departures_ != nullptr) departures_->Note(id.key, Departure::Reason::kUnused);
        });
    stats_.expired += static_cast<uint64_t>(aged.expired);
    untrimmed_bytes_ += bytes_before - index_.bytes();
    // At the end of what is due, too: nobody may write for long.
    trim = untrimmed_bytes_ >= write_buffer_bytes_ || (untrimmed_bytes_ > 0 && !aged.more && aged.used.empty());
  }
  if (trim) TrimFiles();
  return Renew(aged.used) && (aged.more || !aged.used.empty());
}

bool DiskTier::Renew(const std::vector<DiskIndex::Used>& used) {
  std::vector<BlockId> ids;
  for (const DiskIndex::Used& one : used) ids.push_back(one.id);
  const std::vector<absl::StatusOr<BlockValue>> values = Read(ids, /*counted=*/false);
  std::vector<DiskPut> durable, others;
  bool all = true;
  for (size_t i = 0; i < used.size(); ++i) {
    all = all && values[i].ok();
    if (!values[i].ok() || *values[i] == nullptr) continue;  // null: it has gone meanwhile, or is damaged and forgotten
    const DiskIndex::Location& location = used[i].location;
    (location.durable ? durable : others)
        .push_back({.id = used[i].id, .value = *values[i], .tenant = location.tenant, .renews = location.sequence});
  }
  for (const bool synced : {true, false}) {
    const std::vector<DiskPut>& puts = synced ? durable : others;
    if (puts.empty()) continue;
    for (const absl::Status& status : Put(puts, synced)) all = all && status.ok();
  }
  return all;
}

}  // namespace tidepool
