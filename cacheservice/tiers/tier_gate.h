// Whether blocks of prefixes are read from a tier, or computed: what its reads have taken lately against what computing
// the same takes the caller. A tier that loses is left out, and tried again after pauses that double while it goes on
// losing. Only blocks of prefixes are ever left out: recalled rows and sessions are read whatever it takes, and what
// they take is measured, too. Thread-safe; time comes in as an argument.
//
//   if (!gate.LetsThrough(rate, now)) ...                  // a lookup: what is there is not for this caller
//   const TierGate::Verdict verdict = gate.Admit(rate, now);
//   if (verdict != kLeaveOut) { read; gate.Read(verdict, rate, bytes, took, now); }
#ifndef TIDEPOOL_CACHESERVICE_TIERS_TIER_GATE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_TIER_GATE_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/circuit_breaker.h"
#include "base/mutex.h"
#include "base/running_line.h"
#include "cacheservice/tiers/tier_stats.h"

namespace tidepool {

class TierGate {
 public:
  enum class Verdict : uint8_t { kRead, kProbe, kLeaveOut };

  // Reads are compared at this size: a prefix has many blocks, and they are read some at a time.
  static constexpr double kComparedBytes = 1 << 20;

  static constexpr int kLongestPause = 60;  // times the first

  // name: of the tier, for the log. first_pause: before the first probe.
  TierGate(std::string name, absl::Duration first_pause, uint32_t seed);

  // `compute_bytes_per_second`: of keys and values that the caller computes; 0: he wants them whatever reading takes.
  // Whether a read would be made now.
  bool LetsThrough(double compute_bytes_per_second, absl::Time now);
  // What to do now. Exactly one Read follows a kProbe, with bytes 0 if nothing came of it.
  Verdict Admit(double compute_bytes_per_second, absl::Time now);
  void Read(Verdict verdict, double compute_bytes_per_second, uint64_t bytes, absl::Duration took, absl::Time now);
  // A prefix went without the tier.
  void CountLeftOut();

  // Changes nothing: whether reading is expected to take longer than computing.
  bool Losing(double compute_bytes_per_second) const;
  TierReadStats Stats(absl::Time now) const;

 private:
  bool LosingNow(double compute_bytes_per_second) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // As Losing; keeps the breaker in step with it.
  bool Weigh(double compute_bytes_per_second, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogLeftOut(double compute_bytes_per_second, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string name_;
  mutable Mutex mutex_;
  RunningLine seconds_ ABSL_GUARDED_BY(mutex_){RunningLine::Alone::kThroughOrigin};  // of a read, by its bytes
  CircuitBreaker breaker_ ABSL_GUARDED_BY(mutex_);
  double too_slow_for_ ABSL_GUARDED_BY(mutex_) = 0;  // compute_bytes_per_second of who found it losing
  uint64_t reads_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_TIER_GATE_H_
