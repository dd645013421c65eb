#include "worker/engine/load_cost.h"

#include <algorithm>

#include "base/log.h"

namespace tidepool {

void LoadCost::Computed(absl::Duration a_token) {
  MutexLock lock(&mutex_);
  computing_ = absl::ToDoubleSeconds(a_token);
}

void LoadCost::Loaded(int32_t tokens, absl::Duration took) {
  if (tokens <= 0) return;
  MutexLock lock(&mutex_);
  loading_[1] = loading_[0];
  loading_[0] = absl::ToDoubleSeconds(took) / tokens;
}

bool LoadCost::Losing(int32_t tokens) const {
  if (!weigh_ || computing_ == 0 || loading_[0] == 0 || loading_[1] == 0) return false;
  return (std::min(loading_[0], loading_[1]) - computing_) * tokens > absl::ToDoubleSeconds(kSlack);
}

bool LoadCost::Begin(int32_t tokens, absl::Time now) {
  MutexLock lock(&mutex_);
  if (!Losing(tokens)) return true;
  if (now < next_probe_) return false;
  next_probe_ = now + kProbeInterval;
  loading_[0] = loading_[1] = 0;
  return true;
}

bool LoadCost::GoOn(int32_t tokens_left) {
  MutexLock lock(&mutex_);
  if (!Losing(tokens_left)) return true;
  TP_LOG(Warning, "engine", "loading a stored prefix takes ", std::min(loading_[0], loading_[1]) * 1e3,
         " ms a token, computing it ", computing_ * 1e3, " ms: it is computed, and loading tried again in ",
         absl::FormatDuration(kProbeInterval));
  return false;
}

absl::Duration LoadCost::Patience(int32_t tokens) const {
  MutexLock lock(&mutex_);
  if (!weigh_ || computing_ == 0) return absl::InfiniteDuration();
  return absl::Seconds(1 + computing_ * tokens);
}

void LoadCost::Refused(int32_t tokens) {
  MutexLock lock(&mutex_);
  refused_tokens_ += tokens;
}

int64_t LoadCost::refused_tokens() const {
  MutexLock lock(&mutex_);
  return refused_tokens_;
}

}  // namespace tidepool
