#include "worker/kernels/cpu/thread_team.h"

#include <algorithm>
#include <optional>

#include "base/check.h"

namespace tidepool {
ThreadTeam::ThreadTeam(int threads) : size_(threads), members_(threads) {
  TIDEPOOL_CHECK(threads >= 1);
  for (int i = 1; i < threads; ++i) threads_.emplace_back([this, i] { Work(i); });
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  region_.fetch_add(1);
  {
    MutexLock lock(&mutex_);
    wake_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::Run(absl::FunctionRef<void(int)> body) {
  if (size_ == 1) return body(0);
  body_ = &body;
  const uint64_t region = region_.fetch_add(1) + 1;  // publishes body_
  if (sleeping_.load() && sleeping_.exchange(false)) {
    MutexLock lock(&mutex_);
    wake_.SignalAll();
  }
  body(0);
  for (int thread = 1; thread < size_; ++thread) {
    Member& member = members_[thread];
    uint64_t before = region - 1;
    if (member.settled.compare_exchange_strong(before, region)) continue;  // it has not come
    WaitUntil([&] { return member.done.load(std::memory_order_acquire) == region; });
  }
}

void ThreadTeam::ForEach(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body) {
  std::atomic<int64_t> next{0};
  auto drain = [&](int) {
    for (;;) {
      const int64_t first = next.fetch_add(grain, std::memory_order_relaxed);
      if (first >= count) return;
      body(first, std::min(first + grain, count));
    }
  };
  if (count <= grain) return drain(0);
  Run(drain);
}

void ThreadTeam::ForEachInRuns(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body) {
  if (size_ == 1 || count <= grain) return ForEach(count, grain, body);
  auto first_of = [&](int share) { return count * share / size_; };
  for (int share = 0; share < size_; ++share) members_[share].next.store(first_of(share), std::memory_order_relaxed);
  Run([&](int thread) {
    for (int i = 0; i < size_; ++i) {
      const int share = (thread + i) % size_;
      const int64_t end = first_of(share + 1);
      for (;;) {
        const int64_t first = members_[share].next.fetch_add(grain, std::memory_order_relaxed);
        if (first >= end) break;
        body(first, std::min(first + grain, end));
      }
    }
  });
}

void ThreadTeam::Leave(absl::FunctionRef<void(int64_t)> job, int64_t argument) {
  MutexLock lock(&left_mutex_);
  left_.push_back({job, argument});
  left_count_.store(static_cast<int32_t>(left_.size()), std::memory_order_release);
}

bool ThreadTeam::DoLeft() {
  if (left_count_.load(std::memory_order_acquire) == 0) return false;
  std::optional<LeftJob> next;
  {
    MutexLock lock(&left_mutex_);
    if (left_.empty()) return false;
    next.emplace(left_.back());  // what it is about is nearest
    left_.pop_back();
    left_running_.fetch_add(1, std::memory_order_relaxed);
    left_count_.store(static_cast<int32_t>(left_.size()), std::memory_order_release);
  }
  next->job(next->argument);
  left_running_.fetch_sub(1, std::memory_order_release);
  return true;
}

void ThreadTeam::FinishLeft() {
  while (DoLeft()) {
  }
  WaitUntil([&] { return left_running_.load(std::memory_order_acquire) == 0; });
}

void ThreadTeam::Work(int thread) {
  Member& me = members_[thread];
  uint64_t seen = 0;
  for (;;) {
    int spins = 0;
    while (region_.load() == seen) {
      if (DoLeft()) continue;
      if (++spins < kSpins) {
        Pause();
        continue;
      }
      MutexLock lock(&mutex_);
      while (region_.load() == seen) {
        sleeping_.store(true);
        // A region that has begun since has not seen that.
        if (region_.load() == seen) wake_.Wait(&mutex_);
      }
    }
    seen = region_.load();
    if (stop_.load()) return;
    uint64_t before = seen - 1;
    if (!me.settled.compare_exchange_strong(before, seen)) continue;  // it has ended
    (*body_)(thread);
    me.done.store(seen, std::memory_order_release);
  }
}

}  // namespace tidepool
