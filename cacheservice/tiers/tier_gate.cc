#include "cacheservice/tiers/tier_gate.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace tidepool {
namespace {

using State = CircuitBreaker::State;

}  // namespace

// What is known of the tier is from several reads already, so one finding is enough.
TierGate::TierGate(std::string name, absl::Duration first_pause, uint32_t seed)
    : name_(std::move(name)),
      breaker_({.failures_to_open = 1, .first_pause = first_pause, .longest_pause = kLongestPause * first_pause},
               seed) {}

bool TierGate::LosingNow(double compute_bytes_per_second) const {
  if (compute_bytes_per_second <= 0 || !seconds_.known()) return false;
  return seconds_.At(kComparedBytes) > kComparedBytes / compute_bytes_per_second;
}

bool TierGate::Weigh(double compute_bytes_per_second, absl::Time now) {
  const bool losing = LosingNow(compute_bytes_per_second);
  if (losing && breaker_.state() == State::kClosed) {
    breaker_.Failed(now);
    too_slow_for_ = compute_bytes_per_second;
    LogLeftOut(compute_bytes_per_second, now);
  } else if (breaker_.state() == State::kOpen && now >= breaker_.retry_at() && !LosingNow(too_slow_for_)) {
    breaker_.Succeeded();  // reads that nobody could do without have shown it
  }
  return losing;
}

bool TierGate::LetsThrough(double compute_bytes_per_second, absl::Time now) {
  MutexLock lock(&mutex_);
  return !Weigh(compute_bytes_per_second, now) || breaker_.WouldAllow(now);
}

TierGate::Verdict TierGate::Admit(double compute_bytes_per_second, absl::Time now) {
  MutexLock lock(&mutex_);
  if (!Weigh(compute_bytes_per_second, now)) return Verdict::kRead;
  return breaker_.Allow(now) ? Verdict::kProbe : Verdict::kLeaveOut;
}

void TierGate::Read(Verdict verdict, double compute_bytes_per_second, uint64_t bytes, absl::Duration took,
                    absl::Time now) {
  const double seconds = absl::ToDoubleSeconds(took), size = static_cast<double>(bytes);
  MutexLock lock(&mutex_);
  const bool probe = verdict == Verdict::kProbe;
  if (bytes == 0) {
    if (probe) breaker_.Undecided();
    return;
  }
  ++reads_;
  const bool won = seconds * compute_bytes_per_second <= size;
  if (probe && won) seconds_.Forget();
  seconds_.Observe(size, seconds);
  if (!probe) return;
  if (won) {
    breaker_.Succeeded();
    TP_LOG(Info, "cache", name_, " tier: faster than computing again");
  } else {
    breaker_.Failed(now);
    LogLeftOut(compute_bytes_per_second, now);
  }
}

void TierGate::LogLeftOut(double compute_bytes_per_second, absl::Time now) const {
  TP_LOG(Warning, "cache", name_, " tier: a MiB takes ", seconds_.At(kComparedBytes) * 1e3, " ms, computing it ",
         kComparedBytes / compute_bytes_per_second * 1e3, " ms: left out for prefixes, tried again in ",
         absl::FormatDuration(absl::Trunc(breaker_.retry_at() - now, absl::Milliseconds(1))));
}

void TierGate::CountLeftOut() {
  MutexLock lock(&mutex_);
  ++left_out_;
}

bool TierGate::Losing(double compute_bytes_per_second) const {
  MutexLock lock(&mutex_);
  return LosingNow(compute_bytes_per_second);
}

TierReadStats TierGate::Stats(absl::Time now) const {
  MutexLock lock(&mutex_);
  TierReadStats stats;
  stats.reads = reads_;
  stats.latency_seconds = seconds_.fixed();
  const double slope = seconds_.slope();
  stats.bytes_per_second = slope > 0 ? 1 / slope : 0;
  stats.state = breaker_.state();
  stats.times_left_out = breaker_.opened();
  stats.lookups_left_out = left_out_;
  if (stats.state == State::kOpen) {
    stats.retry_seconds = std::max(0.0, absl::ToDoubleSeconds(breaker_.retry_at() - now));
  }
  return stats;
}

}  // namespace tidepool
