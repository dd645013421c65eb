// Layer budgets by captured attention: each layer keeps the fewest rows whose scores sum up to the same share of all of
// the layer's. ZipVL (arXiv 2410.08584) gives that share and lets the number of rows follow; PrefixKV (arXiv
// 2412.03409) gives the number of rows and looks for the share.
//
// scores: one array for each layer, one score >= 0 for each of its rows (sums of attention, say). Negative ones and
// those that are not finite count as 0; a layer whose scores are all 0 is taken to attend to all its rows alike.
#ifndef TIDEPOOL_POLICIES_RETAIN_CAPTURED_MASS_H_
#define TIDEPOOL_POLICIES_RETAIN_CAPTURED_MASS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// The fewest rows of each layer that hold at least `share` (0 to 1) of its scores.
std::vector<int> RowsForMass(absl::Span<const std::vector<float>> scores, double share);

// Rows of each layer, `total` in all (all of them when there are no more), each layer `least` or what it has. They are
// those of the largest share that fits, and what the last row of that share leaves goes to the layers that captured
// least, of equals to the lowest. PrefixKV's code bisects the share and stops within 5 rows of `total`; here nothing is
// left to chance. O(rows log rows).
std::vector<int> RowsOfEqualMass(absl::Span<const std::vector<float>> scores, int64_t total, int least);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_CAPTURED_MASS_H_
