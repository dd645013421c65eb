#include "policies/retain/corm_history.h"

#include <algorithm>
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

Selection CormHistory::Select(int recent, int most) const {
  TIDEPOOL_CHECK(recent >= 0 && most >= recent);
  const int past = std::max(0, rows() - recent);
  std::vector<int32_t> matter;
  for (int32_t i = 0; i < past; ++i) {
    if (mattered_[i] > 0 && mattered_[i] > observed_ - queries_) matter.push_back(i);
  }
  const int room = most - (rows() - past);
  if (static_cast<int>(matter.size()) > room) {
    std::nth_element(matter.begin(), matter.begin() + room, matter.end(), [&](int32_t a, int32_t b) {
      return mattered_[a] > mattered_[b] || (mattered_[a] == mattered_[b] && a < b);
    });
    matter.resize(room);
  }
  std::vector<uint8_t> stays(rows(), 0);
  for (int32_t i : matter) stays[i] = 1;
  std::fill(stays.begin() + past, stays.end(), 1);
  Selection selection;
  for (int32_t i = 0; i < rows(); ++i) (stays[i] ? selection.kept : selection.evicted).push_back(i);
  return selection;
}

void CormHistory::Keep(absl::Span<const int32_t> kept) {
  std::vector<int64_t> mattered;
  mattered.reserve(kept.size());
  for (int32_t i : kept) mattered.push_back(mattered_[i]);
  mattered_ = std::move(mattered);
}

}  // namespace tidepool
