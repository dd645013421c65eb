#include "policies/retain/best_rows.h"

#include <algorithm>

#include "base/check.h"
#include "policies/retain/token_scores.h"

namespace tidepool {

std::vector<int> RowsOfBest(absl::Span<const std::vector<float>> scores, int64_t total, int least) {
  TIDEPOOL_CHECK(total >= 0 && least >= 0);
  std::vector<int> rows;
  std::vector<float> competing;
  std::vector<int> layer_of;
  for (size_t layer = 0; layer < scores.size(); ++layer) {
    const std::vector<int32_t> safe = TopIndices(scores[layer], least);  // ascending
    rows.push_back(static_cast<int>(safe.size()));
    total -= rows.back();
    size_t next = 0;
    for (size_t i = 0; i < scores[layer].size(); ++i) {
      if (next < safe.size() && safe[next] == static_cast<int32_t>(i)) {
        ++next;
        continue;
      }
      competing.push_back(scores[layer][i]);
      layer_of.push_back(static_cast<int>(layer));
    }
  }
  const auto taken = std::clamp<int64_t>(total, 0, static_cast<int64_t>(competing.size()));
  for (int32_t i : TopIndices(competing, static_cast<int>(taken))) ++rows[layer_of[i]];
  return rows;
}

}  // namespace tidepool
