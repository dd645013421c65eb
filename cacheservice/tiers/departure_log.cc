#include "cacheservice/tiers/departure_log.h"

#include <cstring>

#include "absl/time/clock.h"

namespace tidepool {

size_t DepartureLog::PlaceOf(const BlockKey& key) {
  uint64_t hash;  // the first bytes of a digest are as good a hash as any
  std::memcpy(&hash, key.bytes.data(), sizeof hash);
  return hash % kEntries;
}

void DepartureLog::Note(const BlockKey& key, Departure::Reason reason) {
  const uint32_t now = static_cast<uint32_t>(absl::ToUnixSeconds(absl::Now()));
  MutexLock lock(&mutex_);
  entries_[PlaceOf(key)] = {.key = key, .unix_seconds = now, .reason = reason};
}

Departure DepartureLog::Find(const BlockKey& key) const {
  MutexLock lock(&mutex_);
  const Entry& entry = entries_[PlaceOf(key)];
  if (entry.reason == Departure::Reason::kNone || entry.key != key) return {};
  return {.reason = entry.reason, .when = absl::FromUnixSeconds(entry.unix_seconds)};
}

}  // namespace tidepool
