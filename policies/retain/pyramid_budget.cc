#include "policies/retain/pyramid_budget.h"

#include "base/check.h"

namespace tidepool {

std::optional<std::vector<int>> PyramidPastRows(PyramidSchedule schedule, const PyramidInput& input) {
  TIDEPOOL_CHECK(input.layers >= 1 && input.window >= 0 && input.capacity > input.window && input.beta >= 1);
  if (input.tokens <= input.capacity) return std::nullopt;
  const int average = input.capacity - input.window;
  if (input.layers == 1 || (schedule == PyramidSchedule::kFactory && input.tokens < 2 * average)) {
    return std::vector<int>(input.layers, average);
  }
  int low = average / input.beta, high = 2 * average - low;
  if (const int past = input.tokens - input.window; high >= past) {
    high = past;
    low = 2 * average - high;
  }
  const int step = (high - low) / (input.layers - 1);
  std::vector<int> rows;
  for (int layer = 0; layer < input.layers; ++layer) rows.push_back(high - layer * step);
  return rows;
}

}  // namespace tidepool
