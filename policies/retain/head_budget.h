// How the rows of one layer are shared out over its heads. Ada-KV (arXiv 2407.11550, official code; policies.md section
// 5): the best rows of all heads together say how many each head has, above a floor that each has in any case.
#ifndef TIDEPOOL_POLICIES_RETAIN_HEAD_BUDGET_H_
#define TIDEPOOL_POLICIES_RETAIN_HEAD_BUDGET_H_

#include <vector>

#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"
#include "policies/retain/select.h"

namespace tidepool {

struct AdaOptions {
  double floor = 0.2;      // share of the average that each head has whatever its scores, 0 to 1
  bool normalize = false;  // scores of a head times (sum of its `average` best) / (sum of all), before heads compare
};

struct AdaRows {
  std::vector<int> count;  // rows of each head among the best of all heads
  std::vector<int> rows;   // past rows of each head: round_half_even(count * (1 - floor) + int(average * floor))
};

// scores: [heads][past rows], each head's own number of them; `average` past rows for each head. The rows sum up to
// heads * average but for the rounding. Ties go to the lower head, then to the lower row; not-a-number scores come
// last. O(all rows).
AdaRows AdaPastRows(absl::Span<const std::vector<float>> scores, int average, const AdaOptions& options);

// Budgets of the heads of one layer, which have `average` each on average. scores: pooled scores of each head's past
// rows, that is all but the last average.recent; empty for a head that is within the average, which then keeps
// everything. A head has no more heavy rows than scores above minus infinity; under kNeeded it has exactly so many,
// which BindHeadBudgets brings within the average. Under kAda a layer none of whose heads has more past rows than
// average.heavy gives each the average: no row is lost to the rounding.
std::vector<RowBudget> HeadBudgets(const CompressionSpec& spec, const RowBudget& average,
                                   absl::Span<const std::vector<float>> scores);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_HEAD_BUDGET_H_
