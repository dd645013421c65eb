#include "policies/retain/corm_history.h"

#include <limits>
#include <utility>

#include "base/check.h"

namespace tidepool {

CormHistory::CormHistory(int queries) : queries_(queries) { TIDEPOOL_CHECK(queries >= 1); }

void CormHistory::Observe(absl::Span<const float> attention, int visible) {
  TIDEPOOL_CHECK(visible >= 1 && !attention.empty() && attention.size() % visible == 0);
  ++observed_;
  if (visible > rows()) mattered_.resize(visible, 0);
  const float even_share = 1.0f / static_cast<float>(visible);
  for (size_t head = 0; head < attention.size(); head += visible) {
    for (int i = 0; i < visible; ++i) {
      if (attention[head + i] >= even_share) mattered_[i] = observed_;  // false for NaN
    }
  }
}

std::vector<float> CormHistory::Scores(int past) const {
  TIDEPOOL_CHECK(past >= 0 && past <= rows());
  std::vector<float> scores;
  scores.reserve(past);
  for (int i = 0; i < past; ++i) {
    const bool matters = mattered_[i] > 0 && mattered_[i] > observed_ - queries_;
    scores.push_back(matters ? static_cast<float>(mattered_[i] - observed_) : -std::numeric_limits<float>::infinity());
  }
  return scores;
}

void CormHistory::Keep(absl::Span<const int32_t> kept) {
  std::vector<int64_t> mattered;
  mattered.reserve(kept.size());
  for (int32_t i : kept) mattered.push_back(mattered_[i]);
  mattered_ = std::move(mattered);
}

}  // namespace tidepool
