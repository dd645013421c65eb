#include "worker/kernels/cpu/thread_team.h"

#include <algorithm>

#include "base/check.h"

namespace tidepool {
namespace {

// Some 20 us: longer than the gap between two regions of a step, shorter than a scheduler slice.
constexpr int kSpins = 4000;

}  // namespace

ThreadTeam::ThreadTeam(int threads) : size_(threads) {
  TIDEPOOL_CHECK(threads >= 1);
  for (int i = 1; i < threads; ++i) threads_.emplace_back([this, i] { Work(i); });
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  generation_.fetch_add(1);
  {
    MutexLock lock(&mutex_);
    wake_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::Run(absl::FunctionRef<void(int)> body) {
  if (size_ == 1) return body(0);
  body_ = &body;
  running_.store(size_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1);  // publishes body_ and running_
  if (sleeping_.load() > 0) {
    MutexLock lock(&mutex_);
    wake_.SignalAll();
  }
  body(0);
  for (int spins = 0; running_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
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

void ThreadTeam::Work(int thread) {
  uint64_t seen = 0;
  for (;;) {
    int spins = 0;
    while (generation_.load() == seen) {
      if (++spins < kSpins) {
        Pause();
        continue;
      }
      MutexLock lock(&mutex_);
      sleeping_.fetch_add(1);
      while (generation_.load() == seen) wake_.Wait(&mutex_);
      sleeping_.fetch_sub(1);
    }
    ++seen;
    if (stop_.load()) return;
    (*body_)(thread);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace tidepool
