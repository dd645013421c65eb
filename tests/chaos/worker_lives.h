// Which workers are there, as whoever kills them notes it: clients judge by it whether a request that failed was bound
// to. Thread-safe.
#ifndef TIDEPOOL_TESTS_CHAOS_WORKER_LIVES_H_
#define TIDEPOOL_TESTS_CHAOS_WORKER_LIVES_H_

#include <cstdint>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace tidepool::test {

class WorkerLives {
 public:
  // gRPC clients try a server that was away again after so long at most.
  static constexpr absl::Duration kGrace = absl::Seconds(3);

  explicit WorkerLives(int workers) : lives_(static_cast<size_t>(workers)) {}

  // Before it is killed or told to end.
  void Ends(int worker) {
    MutexLock lock(&mutex_);
    lives_[static_cast<size_t>(worker)] = {.away = true, .last_away = absl::Now()};
  }
  // After it has started again.
  void Started(int worker) {
    MutexLock lock(&mutex_);
    lives_[static_cast<size_t>(worker)] = {.away = false, .last_away = absl::Now()};
  }
  // It was away at some time since then, or shortly before.
  bool WasAwaySince(int worker, absl::Time since) const {
    MutexLock lock(&mutex_);
    const Life& life = lives_[static_cast<size_t>(worker)];
    return life.away || life.last_away + kGrace >= since;
  }

 private:
  struct Life {
    bool away = false;
    absl::Time last_away = absl::InfinitePast();
  };
  mutable Mutex mutex_;
  std::vector<Life> lives_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CHAOS_WORKER_LIVES_H_
