// Whether a stored prefix is worth loading: what loading tokens has taken lately against what computing them takes at
// their depth. While the cache service is slower it is left alone, and tried again after pauses that double. What its
// tiers take is the service's to judge, by compute_bytes_per_second; here it is the whole way. Thread-safe.
#ifndef TIDEPOOL_WORKER_ENGINE_LOAD_COST_H_
#define TIDEPOOL_WORKER_ENGINE_LOAD_COST_H_

#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/circuit_breaker.h"
#include "base/mutex.h"
#include "base/running_line.h"

namespace tidepool {

class LoadCost {
 public:
  enum class Verdict : uint8_t { kLoad, kProbe, kCompute };
  // Tokens of a prompt, `first` to `end` - 1.
  struct Tokens {
    int32_t first = 0, end = 0;
    int32_t count() const { return end - first; }
  };

  // `weigh`: else everything is worth loading. token_bytes: keys and values of a token.
  LoadCost(bool weigh, size_t token_bytes, uint32_t seed);

  // Prompt tokens that had `depth` tokens before them on average took so much each.
  void Computed(double depth, absl::Duration a_token);
  // Part of a prefix has come, or has not in all that time.
  void Loaded(int32_t tokens, absl::Duration took);

  // Whether a hit is to be loaded, as far as can be told beforehand. Exactly one Probed follows a kProbe, which GoOn
  // judges by itself.
  Verdict Begin(Tokens hit, absl::Time now);
  // Whether to load what is left of one. The log says why not.
  bool GoOn(Tokens left, absl::Time now);
  // `loaded` of the hit's tokens have come in so much time, whatever ended it.
  void Probed(Tokens hit, int32_t loaded, absl::Duration took, absl::Time now);
  // How long to wait for them at most: what computing them takes, and a second. Infinite where that is not known.
  absl::Duration Patience(Tokens tokens) const;

  // What is expected; changes nothing.
  struct Expectation {
    double compute_bytes_per_second = 0;  // of keys and values; 0: not known, or not to be weighed
    double compute_seconds = 0;           // 0: not known
    double load_seconds = 0;              // 0: not known
    bool loads = true;                    // Begin would not say kCompute
  };
  Expectation Expect(Tokens tokens, absl::Time now) const;

  // Counts stored tokens that were not loaded.
  void Refused(int32_t tokens);
  int64_t refused_tokens() const;

  static constexpr int32_t kPartTokens = 512;                        // are loaded at a time
  static constexpr absl::Duration kSlack = absl::Milliseconds(100);  // loading may take so much longer: rates vary

 private:
  double ComputeSeconds(Tokens tokens) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double LoadSeconds(int32_t tokens) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Losing(Tokens tokens) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeaveAlone(Tokens tokens, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const bool weigh_;
  const double token_bytes_;
  mutable Mutex mutex_;
  RunningLine computing_ ABSL_GUARDED_BY(mutex_){RunningLine::Alone::kLevel};             // seconds a token, by depth
  RunningLine loading_ ABSL_GUARDED_BY(mutex_){RunningLine::Alone::kThroughOrigin};       // seconds, by tokens
  RunningLine before_probe_ ABSL_GUARDED_BY(mutex_){RunningLine::Alone::kThroughOrigin};  // what loading_ was
  CircuitBreaker breaker_ ABSL_GUARDED_BY(mutex_);
  int64_t refused_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_LOAD_COST_H_
