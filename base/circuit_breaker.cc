#include "base/circuit_breaker.h"

#include <algorithm>

namespace tidepool {

bool CircuitBreaker::Allow(absl::Time now) {
  if (!WouldAllow(now)) return false;
  if (state_ == State::kOpen) state_ = State::kHalfOpen;
  return true;
}

void CircuitBreaker::Succeeded() {
  state_ = State::kClosed;
  failures_ = 0;
  pause_ = absl::ZeroDuration();
}

void CircuitBreaker::Failed(absl::Time now, bool lasting) {
  switch (state_) {
    case State::kClosed:
      if (++failures_ < options_.failures_to_open && !lasting) return;
      ++opened_;
      return Open(now);
    case State::kHalfOpen: return Open(now);
    case State::kOpen: return;  // begun before it opened: nothing new
  }
}

void CircuitBreaker::Open(absl::Time now) {
  state_ = State::kOpen;
  pause_ = pause_ == absl::ZeroDuration() ? options_.first_pause : std::min(2 * pause_, options_.longest_pause);
  retry_at_ = now + pause_ * std::uniform_real_distribution<double>(0.5, 1)(random_);
}

}  // namespace tidepool
