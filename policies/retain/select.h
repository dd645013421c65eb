// Which rows of one (layer, kv head) stay. policies.md section 6: StreamingLLM (arXiv 2309.17453), H2O (arXiv
// 2306.14048), SnapKV (arXiv 2404.14469), D2O (arXiv 2406.13035) differ only in their scores and in this budget.
#ifndef TIDEPOOL_POLICIES_RETAIN_SELECT_H_
#define TIDEPOOL_POLICIES_RETAIN_SELECT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// Rows of one (layer, kv head): the last `recent`, and `heavy` of those before them, of which the first `sinks` come
// first.
struct RowBudget {
  int sinks = 0;  // at most heavy of them count
  int heavy = 0;
  int recent = 0;
  int total() const { return heavy + recent; }

  friend bool operator==(const RowBudget&, const RowBudget&) = default;
};

struct Selection {
  std::vector<int32_t> kept;     // ascending
  std::vector<int32_t> evicted;  // ascending
};

// Candidates are `rows` resident rows in ascending position; scores [>= rows - recent] of them in that order (empty:
// all equal, for streaming). Everything stays while rows <= budget.total(). Ties go to the lower position. In a later
// turn the candidates may have gaps: sinks and recent are then the first and last of what is resident.
Selection SelectRows(int rows, absl::Span<const float> scores, const RowBudget& budget);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_SELECT_H_
