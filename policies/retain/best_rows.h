// Layer budgets by the best rows: each layer has as many as it has among the best rows of all layers together. With
// heads that share a layer's rows in the same way (Ada-KV without a floor) the rows that stay are the best of the whole
// sequence, as KVzip (arXiv 2505.23416) evicts.
#ifndef TIDEPOOL_POLICIES_RETAIN_BEST_ROWS_H_
#define TIDEPOOL_POLICIES_RETAIN_BEST_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// Rows of each layer, `total` in all (all of them when there are no more). scores: by layer, of all rows of its heads.
// Each layer has its `least` best rows, or what it has; the others compete. Of equals those of the lower layer win,
// then the earlier ones; what is no number comes last. O(rows log rows).
std::vector<int> RowsOfBest(absl::Span<const std::vector<float>> scores, int64_t total, int least);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_BEST_ROWS_H_
