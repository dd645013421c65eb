// Keeps callers away from something that fails: closed while it works, open for a while after it has failed several
// times in a row, then half-open: one caller probes, and its result closes the breaker or opens it for longer. Not
// thread-safe; time comes in as an argument, so that tests need no clock.
//
//   if (!breaker.Allow(now)) return nothing;   // at once
//   ... exactly one of breaker.Succeeded(), breaker.Failed(now) and breaker.Undecided() follows each Allow that was
//   true
#ifndef TIDEPOOL_BASE_CIRCUIT_BREAKER_H_
#define TIDEPOOL_BASE_CIRCUIT_BREAKER_H_

#include <cstdint>
#include <random>

#include "absl/time/time.h"

namespace tidepool {

struct CircuitBreakerOptions {
  int failures_to_open = 3;  // in a row; at least 1
  // Pauses double from the first to the longest with each probe that fails, and start over after a success. Each is
  // shortened by up to a half at random, so that many clients do not come back in step.
  absl::Duration first_pause = absl::Seconds(5);
  absl::Duration longest_pause = absl::Seconds(300);
};

class CircuitBreaker {
 public:
  enum class State : uint8_t { kClosed, kOpen, kHalfOpen };

  CircuitBreaker(const CircuitBreakerOptions& options, uint32_t seed) : options_(options), random_(seed) {}

  // Whether to try. True from half-open at most once at a time.
  bool Allow(absl::Time now);
  // What Allow would say; nothing follows.
  bool WouldAllow(absl::Time now) const {
    return state_ == State::kClosed || (state_ == State::kOpen && now >= retry_at_);
  }
  void Succeeded();
  // `lasting`: trying again soon is no use (a wrong password), so one failure is enough.
  void Failed(absl::Time now, bool lasting = false);
  // A probe told nothing: the next caller may try at once.
  void Undecided() {
    if (state_ == State::kHalfOpen) state_ = State::kOpen;
  }

  State state() const { return state_; }
  absl::Time retry_at() const { return retry_at_; }  // of an open breaker: when a probe is let through
  uint64_t opened() const { return opened_; }        // times it went from closed to open

 private:
  void Open(absl::Time now);

  const CircuitBreakerOptions options_;
  std::minstd_rand random_;
  State state_ = State::kClosed;
  int failures_ = 0;  // in a row
  absl::Duration pause_;
  absl::Time retry_at_ = absl::InfinitePast();
  uint64_t opened_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_CIRCUIT_BREAKER_H_
