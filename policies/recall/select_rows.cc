#include "policies/recall/select_rows.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/check.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

std::vector<int32_t> Victims(const RecallCandidates& candidates, absl::Span<const int32_t> chosen) {
  TIDEPOOL_CHECK(candidates.resident.size() == candidates.weight.size() &&
                 candidates.average.size() == candidates.weight.size());
  std::vector<uint8_t> is_chosen(candidates.weight.size(), 0);
  for (int32_t i : chosen) is_chosen[i] = 1;
  std::vector<int32_t> victims;
  for (size_t i = 0; i < is_chosen.size(); ++i) {
    if (candidates.resident[i] && !is_chosen[i]) victims.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(victims.begin(), victims.end(), [&](int32_t a, int32_t b) {
    return BestFirst::Rank(candidates.average[a]) < BestFirst::Rank(candidates.average[b]);
  });
  return victims;
}

}  // namespace

std::vector<int32_t> BestRows(absl::Span<const float> weight, int count) {
  std::vector<int32_t> index(weight.size());
  std::iota(index.begin(), index.end(), 0);
  const BestFirst better(weight);
  if (count < static_cast<int>(index.size())) {
    std::nth_element(index.begin(), index.begin() + count, index.end(), better);
    index.resize(std::max(count, 0));
  }
  std::sort(index.begin(), index.end(), better);
  return index;
}

float KthLargest(absl::Span<const float> weight, int k) {
  if (k < 1 || static_cast<size_t>(k) > weight.size()) return 0;
  std::vector<float> ranks(weight.size());
  std::transform(weight.begin(), weight.end(), ranks.begin(), BestFirst::Rank);
  std::nth_element(ranks.begin(), ranks.begin() + k - 1, ranks.end(), std::greater<float>());
  return ranks[k - 1];
}

RecallChoice ChooseBest(const RecallCandidates& candidates, int slots) {
  RecallChoice choice;
  choice.best = BestRows(candidates.weight, slots);
  for (int32_t i : choice.best) {
    if (!candidates.resident[i]) choice.wanted.push_back(i);
  }
  choice.victims = Victims(candidates, choice.best);
  return choice;
}

RecallChoice ChooseAbove(const RecallCandidates& candidates, float threshold, int slots, int most) {
  RecallChoice choice;
  choice.best = BestRows(candidates.weight, slots);
  for (int32_t i : choice.best) {
    if (!(candidates.weight[i] > threshold) || static_cast<int>(choice.wanted.size()) >= most) break;
    if (!candidates.resident[i]) choice.wanted.push_back(i);
  }
  choice.victims = Victims(candidates, choice.best);
  return choice;
}

std::vector<int32_t> RowsAhead(absl::Span<const int32_t> best, absl::Span<const int32_t> positions,
                               absl::Span<const uint8_t> resident, int follow, int most) {
  TIDEPOOL_CHECK(resident.size() == positions.size());
  std::vector<int32_t> ahead;
  std::vector<uint8_t> taken(positions.size(), 0);
  int count = 0;
  for (int32_t i : best) {
    for (size_t j = i; j < positions.size() && positions[j] <= positions[i] + follow; ++j) {
      if (count >= most) return ahead;
      if (taken[j]) continue;
      taken[j] = 1;
      ++count;
      if (!resident[j]) ahead.push_back(static_cast<int32_t>(j));
    }
  }
  return ahead;
}

}  // namespace tidepool
