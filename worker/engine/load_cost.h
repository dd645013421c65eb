// Whether a stored prefix is worth loading: what loading tokens has taken lately against what computing them takes. A
// cache that has become slower than the engine is left alone and tried again from time to time. Thread-safe.
#ifndef TIDEPOOL_WORKER_ENGINE_LOAD_COST_H_
#define TIDEPOOL_WORKER_ENGINE_LOAD_COST_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace tidepool {

class LoadCost {
 public:
  // `weigh`: else everything is worth loading.
  explicit LoadCost(bool weigh) : weigh_(weigh) {}

  // What computing a token of a prompt takes on average; zero: not known.
  void Computed(absl::Duration a_token);
  // Part of a prefix has come, or has not in all that time.
  void Loaded(int32_t tokens, absl::Duration took);

  // Whether a hit of so many tokens is to be loaded, as far as can be told beforehand. Once in kProbeInterval a prefix
  // that is not is tried all the same: what is known of loading is forgotten then.
  bool Begin(int32_t tokens, absl::Time now);
  // Whether to load the tokens that are left of one. The log says why not.
  bool GoOn(int32_t tokens_left);
  // How long to wait for so many tokens at most: what computing them takes, and a second. Infinite where that is not
  // known.
  absl::Duration Patience(int32_t tokens) const;

  // Counts stored tokens that were not loaded.
  void Refused(int32_t tokens);
  int64_t refused_tokens() const;

  static constexpr absl::Duration kProbeInterval = absl::Seconds(10);
  static constexpr absl::Duration kSlack = absl::Milliseconds(100);  // loading may take so much longer: rates vary

 private:
  bool Losing(int32_t tokens) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const bool weigh_;
  mutable Mutex mutex_;
  // Seconds for each token; 0: not seen.
  double computing_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of the newest two parts. The better one counts: a pause of the machine says nothing about the next.
  double loading_[2] ABSL_GUARDED_BY(mutex_) = {0, 0};
  absl::Time next_probe_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  int64_t refused_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_LOAD_COST_H_
