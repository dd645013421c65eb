#include "cacheservice/shards/pod_health.h"

#include <algorithm>

namespace tidepool {

bool PodHealth::Success(absl::Time now) {
  failures_ = 0;
  if (state_ == State::kUp) return false;
  up_since_ = starts_slowly_ ? now : absl::InfinitePast();
  state_ = State::kUp;
  return true;
}

bool PodHealth::Failure() {
  if (state_ == State::kDown || ++failures_ < most_failures_) return false;
  // One that was never reached may still be starting, as this process is.
  if (state_ == State::kUp) {
    starts_slowly_ = true;
    ++downs_;
  }
  state_ = State::kDown;
  return true;
}

double PodHealth::Weight(absl::Time now) const {
  if (state_ != State::kUp) return 0;
  if (slow_start_ <= absl::ZeroDuration()) return 1;
  const double grown = absl::FDivDuration(now - up_since_, slow_start_);
  return std::clamp(kFirstWeight + (1 - kFirstWeight) * grown, kFirstWeight, 1.0);
}

}  // namespace tidepool
