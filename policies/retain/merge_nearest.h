// Elastic Cache (arXiv 2407.18121): what is evicted is averaged into the kept row nearest to it by position.
#ifndef TIDEPOOL_POLICIES_RETAIN_MERGE_NEAREST_H_
#define TIDEPOOL_POLICIES_RETAIN_MERGE_NEAREST_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// For each evicted row, the index of the kept row whose position is nearest, of two as near the lower one. Positions
// ascend; kept >= 1. O(kept + evicted).
std::vector<int32_t> NearestKept(absl::Span<const int32_t> kept, absl::Span<const int32_t> evicted);

// kept [kept rows][width] becomes, row by row, the mean of itself and of the evicted rows [evicted][width] whose target
// it is, all of the same weight. Rows that are no target stay as they are, bit for bit.
void AverageInto(absl::Span<const int32_t> target, absl::Span<const float> evicted, int width, absl::Span<float> kept);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_MERGE_NEAREST_H_
