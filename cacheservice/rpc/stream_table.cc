#include "cacheservice/rpc/stream_table.h"

#include <algorithm>

namespace tidepool {

absl::Time StreamMeter::Asked() {
  MutexLock lock(&mutex_);
  ++stats_.under_way;
  return absl::Now();
}

void StreamMeter::Answered(absl::Time asked, uint64_t bytes) {
  const absl::Duration took = absl::Now() - asked;
  MutexLock lock(&mutex_);
  --stats_.under_way;
  ++stats_.requests;
  stats_.bytes += bytes;
  stats_.longest = std::max(stats_.longest, took);
  stats_.mean += stats_.requests == 1 ? took : (took - stats_.mean) / 16;  // of the last sixteen or so
}

StreamStats StreamMeter::Stats() const {
  MutexLock lock(&mutex_);
  StreamStats stats = stats_;
  stats.open = absl::Now() - opened_;
  return stats;
}

std::shared_ptr<StreamMeter> StreamTable::Add(StreamStats::Kind kind, std::string peer) {
  MutexLock lock(&mutex_);
  const uint64_t id = ++last_id_;
  std::shared_ptr<StreamMeter> meter(new StreamMeter(id, kind, std::move(peer)), [this, id](StreamMeter* gone) {
    MutexLock table_lock(&mutex_);
    meters_.erase(id);
    delete gone;
  });
  meters_[id] = meter.get();
  return meter;
}

std::vector<StreamStats> StreamTable::Stats() const {
  std::vector<StreamStats> all;
  MutexLock lock(&mutex_);
  for (const auto& [id, meter] : meters_) all.push_back(meter->Stats());
  return all;
}

}  // namespace tidepool
