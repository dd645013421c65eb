#include "policies/retain/select.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "policies/retain/token_scores.h"

namespace tidepool {

Selection SelectRows(int rows, absl::Span<const float> scores, const RowBudget& budget) {
  TIDEPOOL_CHECK(rows >= 0 && budget.sinks >= 0 && budget.heavy >= 0 && budget.recent >= 0);
  Selection selection;
  selection.kept.reserve(std::min(rows, budget.total()));
  if (rows <= budget.total()) {
    selection.kept.resize(rows);
    std::iota(selection.kept.begin(), selection.kept.end(), 0);
    return selection;
  }
  const int past = rows - budget.recent;
  const int sinks = std::min(budget.sinks, budget.heavy);
  std::vector<uint8_t> stays(rows, 0);
  std::fill(stays.begin(), stays.begin() + sinks, 1);
  std::fill(stays.begin() + past, stays.end(), 1);
  if (budget.heavy > sinks) {
    TIDEPOOL_CHECK(static_cast<int>(scores.size()) >= past);
    for (int32_t i : TopIndices(scores.subspan(sinks, past - sinks), budget.heavy - sinks)) stays[sinks + i] = 1;
  }
  for (int i = 0; i < rows; ++i) (stays[i] ? selection.kept : selection.evicted).push_back(i);
  return selection;
}

}  // namespace tidepool
