// Whether a pod is in use, decided by how calls to it end. Pure: time comes in.
//
//   kConnecting --success--> kUp <--success-- kDown
//        |                    |                 ^
//        '--failures----------'----failures-----'     most_failures in a row
//
// A pod that was down, or that joined later, starts slowly: its weight grows from kFirstWeight to 1 over `slow_start`,
// so that a node without anything in memory is not flooded. One that was there at the beginning does not: whoever
// starts may be the one that was away. Not thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_POD_HEALTH_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_POD_HEALTH_H_

#include <cstdint>

#include "absl/time/time.h"

namespace tidepool {

class PodHealth {
 public:
  enum class State : uint8_t { kConnecting, kUp, kDown };
  static constexpr double kFirstWeight = 0.1;

  PodHealth(int most_failures, absl::Duration slow_start, bool joined_later)
      : most_failures_(most_failures), slow_start_(slow_start), starts_slowly_(joined_later) {}

  // Both return whether the state has changed.
  bool Success(absl::Time now);
  bool Failure();

  State state() const { return state_; }
  int64_t downs() const { return downs_; }
  // 0 when it is not up.
  double Weight(absl::Time now) const;

 private:
  const int most_failures_;
  const absl::Duration slow_start_;
  bool starts_slowly_;
  State state_ = State::kConnecting;
  int failures_ = 0;  // in a row
  int64_t downs_ = 0;
  absl::Time up_since_ = absl::InfinitePast();  // of a slow start
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_POD_HEALTH_H_
