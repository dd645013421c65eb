#include "bench/quality/cell.h"

#include <algorithm>
#include <cmath>

namespace tidepool::quality {

void Cost::Add(const GenerationUsage& usage, int64_t turn_tokens) {
  const auto full = static_cast<double>(std::max<int64_t>(1, usage.full_kv_bytes));
  resident = std::max(resident, static_cast<double>(usage.resident_kv_bytes) / full);
  index = std::max(index, static_cast<double>(usage.index_bytes) / full);
  index_on_device |= usage.index_on_device;
  staged_bytes = std::max(staged_bytes, usage.staged_bytes);
  recalled_rows += usage.recalled_rows;
  late_rows += usage.late_rows;
  lost_rows += usage.lost_rows;
  // The last generated token is not computed.
  steps += turn_tokens + std::max<int64_t>(0, usage.generated_tokens - 1);
  degraded |= usage.degraded;
}

double StandardError(absl::Span<const double> values) {
  const auto n = static_cast<double>(values.size());
  if (n < 2) return 0;
  double mean = 0, squares = 0;
  for (double value : values) mean += value / n;
  for (double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (n - 1) / n);
}

}  // namespace tidepool::quality
