#include "cacheservice/rpc/put_queue.h"

#include <utility>

namespace tidepool {

PutQueue::PutQueue(TieredStore* blocks) : blocks_(blocks), thread_([this] { Work(); }) {}

PutQueue::~PutQueue() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    wake_.SignalAll();
  }
  thread_.join();
}

void PutQueue::Add(BlockPut put, std::function<void(absl::StatusOr<Tier>)> done) {
  MutexLock lock(&mutex_);
  entries_.push_back({std::move(put), std::move(done)});
  wake_.Signal();
}

void PutQueue::Work() {
  for (;;) {
    std::vector<Entry> entries;
    {
      MutexLock lock(&mutex_);
      while (entries_.empty() && !stop_) wake_.Wait(&mutex_);
      if (entries_.empty()) return;
      entries.swap(entries_);
    }
    std::vector<BlockPut> puts;
    puts.reserve(entries.size());
    for (Entry& entry : entries) puts.push_back(std::move(entry.put));
    std::vector<absl::StatusOr<Tier>> results = blocks_->PutMany(std::move(puts));
    for (size_t i = 0; i < entries.size(); ++i) entries[i].done(std::move(results[i]));
  }
}

}  // namespace tidepool
