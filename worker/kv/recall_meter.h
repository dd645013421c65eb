// What recall does, as numbers to watch: counted by the engine thread, copied into the engine's stats.
#ifndef TIDEPOOL_WORKER_KV_RECALL_METER_H_
#define TIDEPOOL_WORKER_KV_RECALL_METER_H_

#include <array>
#include <cstdint>

#include "base/histogram.h"

namespace tidepool {

// Shares of the attention: from what no answer notices to what is most of it.
inline constexpr double kMassBounds[] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1};
// Seconds of a recall: from host memory's to what a deadline allows.
inline constexpr double kRecallSecondsBounds[] = {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02,
                                                  0.05,   0.1,    0.2,    0.5,   1,     2,     5,    10};

// Lower, middle and upper third of a model's layers: policies and recall act differently on them, and three are few
// enough to keep for each policy.
inline constexpr int kLayerGroups = 3;
inline constexpr int LayerGroupOf(int layer, int layers) { return layer * kLayerGroups / layers; }

// Of one policy.
struct RecallMeter {
  struct Group {
    int64_t recalled_rows = 0;  // wanted by a step and installed
    int64_t late_rows = 0;      // wanted by a step, asked for and given up
    int64_t lost_rows = 0;      // wanted by a step and not to be had
    // One observation for each kv head that chooses while decoding, by its index, mean over its queries.
    Histogram evicted_mass{kMassBounds};  // share of the attention that is on evicted rows, recalled ones included
    Histogram dropped_mass{kMassBounds};  // of this, what is not in a slot when the layer attends
  };
  std::array<Group, kLayerGroups> groups;
};

// Requests to the cache service, of all sequences. Times are of those that were answered.
struct RecallRequests {
  struct Mode {
    int64_t answered = 0;
    int64_t late = 0;  // given up at the deadline
    int64_t failed = 0;
    Histogram seconds{kRecallSecondsBounds};
  };
  Mode sync;  // the step waited
  Mode async;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_RECALL_METER_H_
