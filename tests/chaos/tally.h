// What the clients of the scenario have seen. Thread-safe.
#ifndef TIDEPOOL_TESTS_CHAOS_TALLY_H_
#define TIDEPOOL_TESTS_CHAOS_TALLY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"

namespace tidepool::test {

class Tally {
 public:
  struct Counts {
    int64_t answers = 0;        // compared with what they are without faults
    int64_t session_turns = 0;  // of them
    int64_t sessions_ended = 0, sessions_kept = 0;
    int64_t own_worker_gone =
        0;                       // attempts that failed because their worker was killed or ended: tried again elsewhere
    int64_t stored_unheard = 0;  // turns that were stored though their worker was killed before it could say so
    int64_t recomputed_turns = 0;  // turns of sessions some of whose context was computed again
    // Must be 0.
    int64_t wrong = 0;         // answers with other tokens
    int64_t failed = 0;        // requests that a live worker refused or failed
    int64_t lost = 0;          // acknowledged turns that are not there
    double worst_seconds = 0;  // of one attempt
  };

  template <typename Change>
  void Count(const Change& change) {
    MutexLock lock(&mutex_);
    change(counts_);
  }
  // Something that must not happen, in words; the first ones are kept.
  void Complain(std::string what) {
    MutexLock lock(&mutex_);
    if (complaints_.size() < 50) complaints_.push_back(std::move(what));
  }
  Counts counts() const {
    MutexLock lock(&mutex_);
    return counts_;
  }
  std::vector<std::string> complaints() const {
    MutexLock lock(&mutex_);
    return complaints_;
  }

 private:
  mutable Mutex mutex_;
  Counts counts_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> complaints_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CHAOS_TALLY_H_
