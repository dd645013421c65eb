#include "policies/retain/captured_mass.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/check.h"

namespace tidepool {
namespace {

// Shares that the best 1, 2, ... rows of a layer hold: ascending, the last is 1.
std::vector<double> CumulativeShares(absl::Span<const float> scores) {
  std::vector<double> shares;
  shares.reserve(scores.size());
  for (float score : scores) shares.push_back(score > 0 && std::isfinite(score) ? score : 0.0);
  std::sort(shares.begin(), shares.end(), std::greater<>());
  double sum = 0;
  for (double& share : shares) share = sum += share;
  for (size_t i = 0; i < shares.size(); ++i) {
    shares[i] = sum > 0 ? shares[i] / sum : static_cast<double>(i + 1) / static_cast<double>(shares.size());
  }
  return shares;
}

}  // namespace

std::vector<int> RowsForMass(absl::Span<const std::vector<float>> scores, double share) {
  TIDEPOOL_CHECK(share >= 0 && share <= 1);
  std::vector<int> rows;
  for (const std::vector<float>& layer : scores) {
    const std::vector<double> shares = CumulativeShares(layer);
    const auto enough = std::lower_bound(shares.begin(), shares.end(), share);
    // The best row alone may hold it; none is needed for a share of 0.
    rows.push_back(share > 0 ? static_cast<int>(enough - shares.begin()) + 1 : 0);
    rows.back() = std::min(rows.back(), static_cast<int>(layer.size()));
  }
  return rows;
}

std::vector<int> RowsOfEqualMass(absl::Span<const std::vector<float>> scores, int64_t total, int least) {
  TIDEPOOL_CHECK(total >= 0 && least >= 0);
  // A layer takes its next row when the common share passes what its rows hold so far. Rows in the order of that share
  // are therefore taken one by one, in whatever layer they are, until there are enough.
  struct Row {
    double captured_before;
    int layer;
  };
  std::vector<int> rows;
  std::vector<Row> order;
  for (size_t layer = 0; layer < scores.size(); ++layer) {
    const std::vector<double> shares = CumulativeShares(scores[layer]);
    rows.push_back(std::min(least, static_cast<int>(shares.size())));
    total -= rows.back();
    for (size_t i = rows.back(); i < shares.size(); ++i) {
      order.push_back({i == 0 ? 0.0 : shares[i - 1], static_cast<int>(layer)});
    }
  }
  const auto taken = static_cast<size_t>(std::clamp<int64_t>(total, 0, static_cast<int64_t>(order.size())));
  std::nth_element(
      order.begin(), order.begin() + static_cast<int64_t>(taken), order.end(), [](const Row& a, const Row& b) {
        return a.captured_before < b.captured_before || (a.captured_before == b.captured_before && a.layer < b.layer);
      });
  for (size_t i = 0; i < taken; ++i) ++rows[order[i].layer];
  return rows;
}

}  // namespace tidepool
