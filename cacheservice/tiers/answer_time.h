// How long an answer with a deadline may go on gathering what is slow to read.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_ANSWER_TIME_H_
#define TIDEPOOL_CACHESERVICE_TIERS_ANSWER_TIME_H_

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tidepool {

// An answer that comes late is lost with all that was found before. So nothing is begun that could make it late: it may
// take as long as the longest so far, and the answer has a way to go.
class AnswerTime {
 public:
  explicit AnswerTime(absl::Time deadline)
      : begun_(absl::Now()), until_(deadline - std::min((deadline - begun_) / 4, absl::Milliseconds(5))) {}

  // Before each piece of work. False: there is no time for it.
  bool ForMore() {
    const absl::Time now = absl::Now();
    longest_ = std::max(longest_, now - begun_);
    begun_ = now;
    return now + longest_ < until_;
  }

 private:
  absl::Time begun_;  // the last piece, or before the first
  const absl::Time until_;
  absl::Duration longest_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_ANSWER_TIME_H_
