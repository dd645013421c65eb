#include "worker/engine/load_cost.h"

#include "base/log.h"

namespace tidepool {
namespace {

using State = CircuitBreaker::State;

}  // namespace

// What is known of loading is from several parts already, so one finding is enough.
LoadCost::LoadCost(bool weigh, size_t token_bytes, uint32_t seed)
    : weigh_(weigh), token_bytes_(static_cast<double>(token_bytes)), breaker_({.failures_to_open = 1}, seed) {}

void LoadCost::Computed(double depth, absl::Duration a_token) {
  MutexLock lock(&mutex_);
  computing_.Observe(depth, absl::ToDoubleSeconds(a_token));
}

void LoadCost::Loaded(int32_t tokens, absl::Duration took) {
  MutexLock lock(&mutex_);
  loading_.Observe(tokens, absl::ToDoubleSeconds(took));
}

double LoadCost::ComputeSeconds(Tokens tokens) const {
  return computing_.known() ? computing_.At((tokens.first + tokens.end) / 2.0) * tokens.count() : 0;
}

double LoadCost::LoadSeconds(int32_t tokens) const {
  if (!loading_.known()) return 0;
  if (tokens <= kPartTokens) return loading_.At(tokens);
  return loading_.At(kPartTokens) / kPartTokens * tokens;
}

bool LoadCost::Losing(Tokens tokens) const {
  if (!weigh_ || !computing_.known() || !loading_.known()) return false;
  return LoadSeconds(tokens.count()) - ComputeSeconds(tokens) > absl::ToDoubleSeconds(kSlack);
}

void LoadCost::LeaveAlone(Tokens tokens, absl::Time now) {
  breaker_.Failed(now);
  TP_LOG(Warning, "engine", "loading ", tokens.count(), " stored tokens takes ", LoadSeconds(tokens.count()),
         " s, computing them ", ComputeSeconds(tokens), " s: they are computed, and loading tried again in ",
         absl::FormatDuration(absl::Trunc(breaker_.retry_at() - now, absl::Milliseconds(1))));
}

LoadCost::Verdict LoadCost::Begin(Tokens hit, absl::Time now) {
  MutexLock lock(&mutex_);
  if (breaker_.state() == State::kHalfOpen) return Verdict::kCompute;  // soon we know more
  if (!Losing(hit)) return Verdict::kLoad;
  if (breaker_.state() == State::kClosed) LeaveAlone(hit, now);
  if (!breaker_.Allow(now)) return Verdict::kCompute;
  before_probe_ = loading_;
  loading_.Forget();
  return Verdict::kProbe;
}

bool LoadCost::GoOn(Tokens left, absl::Time now) {
  MutexLock lock(&mutex_);
  if (!Losing(left)) return true;
  if (breaker_.state() == State::kClosed) LeaveAlone(left, now);
  return false;
}

void LoadCost::Probed(Tokens hit, int32_t loaded, absl::Duration took, absl::Time now) {
  MutexLock lock(&mutex_);
  bool won = loaded > 0;
  if (loading_.known()) {
    won = won && !Losing(hit);
  } else if (won) {  // in one part
    const double all = absl::ToDoubleSeconds(took) / loaded * hit.count();
    won = all - ComputeSeconds(hit) <= absl::ToDoubleSeconds(kSlack);
  }
  if (!won && !loading_.known()) loading_ = before_probe_;
  if (won) {
    breaker_.Succeeded();
    TP_LOG(Info, "engine", "loading stored tokens is faster than computing them again");
  } else {
    LeaveAlone(hit, now);
  }
}

absl::Duration LoadCost::Patience(Tokens tokens) const {
  MutexLock lock(&mutex_);
  if (!weigh_ || !computing_.known()) return absl::InfiniteDuration();
  return absl::Seconds(1 + ComputeSeconds(tokens));
}

LoadCost::Expectation LoadCost::Expect(Tokens tokens, absl::Time now) const {
  MutexLock lock(&mutex_);
  Expectation expected;
  expected.compute_seconds = ComputeSeconds(tokens);
  expected.load_seconds = LoadSeconds(tokens.count());
  if (weigh_ && expected.compute_seconds > 0) {
    expected.compute_bytes_per_second = token_bytes_ * tokens.count() / expected.compute_seconds;
  }
  expected.loads = breaker_.state() == State::kClosed
                       ? !Losing(tokens)
                       : breaker_.state() == State::kOpen && (!Losing(tokens) || breaker_.WouldAllow(now));
  return expected;
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
