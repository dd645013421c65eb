#include "policies/retain/repetition_scores.h"

#include <algorithm>

#include "base/check.h"

namespace tidepool {

std::vector<float> RepetitionScores(absl::Span<const float> attention, const RepeatedRows& rows) {
  TIDEPOOL_CHECK(rows.rows >= 1 && attention.size() % rows.rows == 0);
  TIDEPOOL_CHECK(0 <= rows.first && rows.first <= rows.last && rows.last <= rows.repetition);
  TIDEPOOL_CHECK(rows.repetition <= rows.rows && rows.sinks >= 0);
  const int sinks = std::min(rows.sinks, rows.first);  // those of the piece count once
  std::vector<float> best(rows.last - rows.first, 0.0f);
  for (size_t at = 0; at < attention.size(); at += rows.rows) {
    const float* query = attention.data() + at;
    double compared = 0;
    for (int i = 0; i < sinks; ++i) compared += query[i];
    for (int i = rows.first; i < rows.last; ++i) compared += query[i];
    for (int i = rows.repetition; i < rows.rows; ++i) compared += query[i];
    if (!(compared > 0)) continue;
    for (int i = rows.first; i < rows.last; ++i) {
      const auto probability = static_cast<float>(query[i] / compared);
      if (probability > best[i - rows.first]) best[i - rows.first] = probability;
    }
  }
  return best;
}

}  // namespace tidepool
