#include "cacheservice/tiers/demotion_queue.h"

#include <utility>
#include <vector>

namespace tidepool {
namespace {

constexpr uint64_t kBatchBytes = uint64_t{4} << 20;

}  // namespace

DemotionQueue::DemotionQueue(TenantDisks* disk, uint64_t limit_bytes, DepartureLog* departures)
    : disk_(disk), limit_bytes_(limit_bytes), departures_(departures), thread_([this] { Run(); }) {}

DemotionQueue::~DemotionQueue() {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
    work_.Signal();
  }
  thread_.join();
}

void DemotionQueue::Push(const BlockId& id, const BlockValue& value, TenantId tenant) {
  const uint64_t bytes = value->capacity();
  MutexLock lock(&mutex_);
  while (stats_.bytes > 0 && stats_.bytes + bytes > limit_bytes_) written_.Wait(&mutex_);
  if (!values_.emplace(id, Waiting{value, tenant}).second) return;  // evicted twice: the same bytes
  stats_.bytes += bytes;
  order_.push_back(id);
  ++pushed_;
  work_.Signal();
}

BlockValue DemotionQueue::Find(const BlockId& id) const {
  MutexLock lock(&mutex_);
  const auto found = values_.find(id);
  return found == values_.end() ? nullptr : found->second.value;
}

bool DemotionQueue::Busy() const {
  MutexLock lock(&mutex_);
  return stats_.bytes > limit_bytes_ / 2;
}

void DemotionQueue::Drain() {
  MutexLock lock(&mutex_);
  const uint64_t until = pushed_;
  while (settled_ < until) written_.Wait(&mutex_);
}

DemotionQueue::Stats DemotionQueue::stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

void DemotionQueue::Run() {
  while (true) {
    std::vector<DiskPut> batch;
    {
      MutexLock lock(&mutex_);
      while (order_.empty() && !closing_) work_.Wait(&mutex_);
      if (order_.empty()) return;
      for (uint64_t bytes = 0; !order_.empty() && bytes < kBatchBytes; order_.pop_front()) {
        const BlockId& id = order_.front();
        const Waiting& waiting = values_[id];
        batch.push_back({.id = id, .value = waiting.value, .tenant = waiting.tenant});
        bytes += batch.back().value->size();
      }
    }
    const std::vector<absl::Status> results = disk_->Put(batch, /*durable=*/false);
    MutexLock lock(&mutex_);
    for (size_t i = 0; i < batch.size(); ++i) {
      values_.erase(batch[i].id);
      stats_.bytes -= batch[i].value->capacity();
      ++(results[i].ok() ? stats_.written : stats_.lost);
      if (!results[i].ok()) departures_->Note(batch[i].id.key, Departure::Reason::kDisk);
    }
    settled_ += batch.size();
    written_.SignalAll();
  }
}

}  // namespace tidepool
