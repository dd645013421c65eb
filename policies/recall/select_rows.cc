#include "policies/recall/select_rows.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace tidepool {
namespace {

// The indices of the `count` best, best first; ties to the lower index.
std::vector<int32_t> Best(absl::Span<const float> weight, int count) {
  std::vector<int32_t> index(weight.size());
  std::iota(index.begin(), index.end(), 0);
  auto better = [&](int32_t a, int32_t b) { return weight[a] > weight[b] || (weight[a] == weight[b] && a < b); };
  if (count < static_cast<int>(index.size())) {
    std::nth_element(index.begin(), index.begin() + count, index.end(), better);
    index.resize(std::max(count, 0));
  }
  std::sort(index.begin(), index.end(), better);
  return index;
}

std::vector<int32_t> Victims(const RecallCandidates& candidates, absl::Span<const int32_t> chosen) {
  std::vector<uint8_t> is_chosen(candidates.weight.size(), 0);
  for (int32_t i : chosen) is_chosen[i] = 1;
  std::vector<int32_t> victims;
  for (size_t i = 0; i < is_chosen.size(); ++i) {
    if (candidates.resident[i] && !is_chosen[i]) victims.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(victims.begin(), victims.end(),
                   [&](int32_t a, int32_t b) { return candidates.average[a] < candidates.average[b]; });
  return victims;
}

}  // namespace

float KthLargest(absl::Span<const float> weight, int k) {
  if (weight.empty() || k < 1) return 0;
  std::vector<float> copy(weight.begin(), weight.end());
  const size_t at = std::min<size_t>(k, copy.size()) - 1;
  std::nth_element(copy.begin(), copy.begin() + static_cast<int64_t>(at), copy.end(), std::greater<float>());
  return copy[at];
}

RecallChoice ChooseBest(const RecallCandidates& candidates, int slots) {
  const std::vector<int32_t> best = Best(candidates.weight, slots);
  RecallChoice choice;
  for (int32_t i : best) {
    if (!candidates.resident[i]) choice.wanted.push_back(i);
  }
  choice.victims = Victims(candidates, best);
  return choice;
}

RecallChoice ChooseAbove(const RecallCandidates& candidates, float threshold, int slots, int most) {
  RecallChoice choice;
  const std::vector<int32_t> best = Best(candidates.weight, slots);
  for (int32_t i : best) {
    if (!(candidates.weight[i] > threshold) || static_cast<int>(choice.wanted.size()) >= most) break;
    if (!candidates.resident[i]) choice.wanted.push_back(i);
  }
  choice.victims = Victims(candidates, best);
  return choice;
}

}  // namespace tidepool
