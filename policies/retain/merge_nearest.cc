#include "policies/retain/merge_nearest.h"

#include "base/check.h"

namespace tidepool {

std::vector<int32_t> NearestKept(absl::Span<const int32_t> kept, absl::Span<const int32_t> evicted) {
  TIDEPOOL_CHECK(!kept.empty());
  std::vector<int32_t> target;
  target.reserve(evicted.size());
  size_t nearest = 0;
  for (int32_t position : evicted) {
    while (nearest + 1 < kept.size() && kept[nearest + 1] - position < position - kept[nearest]) ++nearest;
    target.push_back(static_cast<int32_t>(nearest));
  }
  return target;
}

void AverageInto(absl::Span<const int32_t> target, absl::Span<const float> evicted, int width, absl::Span<float> kept) {
  TIDEPOOL_CHECK(evicted.size() == target.size() * width && kept.size() % width == 0);
  std::vector<int> sources(kept.size() / width, 1);
  for (size_t e = 0; e < target.size(); ++e) {
    ++sources[target[e]];
    for (int c = 0; c < width; ++c) kept[target[e] * int64_t{width} + c] += evicted[e * width + c];
  }
  for (size_t row = 0; row < sources.size(); ++row) {
    if (sources[row] == 1) continue;
    for (int c = 0; c < width; ++c) kept[row * width + c] /= static_cast<float>(sources[row]);
  }
}

}  // namespace tidepool
