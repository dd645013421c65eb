// Pauses between attempts to connect: doubling, with jitter, so that workers do not come back in step.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_BACKOFF_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_BACKOFF_H_

#include <algorithm>
#include <chrono>
#include <random>

namespace tidepool {

class Backoff {
 public:
  void Reset() { next_ms_ = kFirstMs; }
  std::chrono::milliseconds Next() {
    const int pause = std::uniform_int_distribution<int>(next_ms_ / 2, next_ms_)(random_);
    next_ms_ = std::min(next_ms_ * 2, kMostMs);
    return std::chrono::milliseconds(pause);
  }

 private:
  static constexpr int kFirstMs = 50, kMostMs = 2000;
  int next_ms_ = kFirstMs;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_BACKOFF_H_
