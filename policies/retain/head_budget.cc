#include "policies/retain/head_budget.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

// Share of a head's scores that its `count` best hold. A head that nothing attends to has none.
double BestShare(absl::Span<const float> scores, int count) {
  double best = 0, all = 0;
  for (int32_t i : TopIndices(scores, count)) best += scores[i];
  for (float score : scores) all += score;
  return all > 0 ? best / all : 0;
}

}  // namespace

AdaRows AdaPastRows(absl::Span<const std::vector<float>> scores, int average, const AdaOptions& options) {
  TIDEPOOL_CHECK(average >= 0);
  std::vector<float> flat;
  std::vector<int32_t> head_of;
  for (size_t head = 0; head < scores.size(); ++head) {
    const double weight = options.normalize ? BestShare(scores[head], average) : 1.0;
    for (float score : scores[head]) flat.push_back(static_cast<float>(score * weight));
    head_of.resize(flat.size(), static_cast<int32_t>(head));
  }
  AdaRows result;
  result.count.assign(scores.size(), 0);
  const int64_t best = std::min<int64_t>(int64_t{average} * scores.size(), flat.size());
  for (int32_t i : TopIndices(flat, static_cast<int>(best))) ++result.count[head_of[i]];
  const int floor = static_cast<int>(average * options.floor);
  for (size_t head = 0; head < scores.size(); ++head) {
    // nearbyint rounds halves to even, as NumPy and PyTorch do.
    const int rows = static_cast<int>(std::nearbyint(result.count[head] * (1.0 - options.floor) + floor));
    result.rows.push_back(std::min(rows, static_cast<int>(scores[head].size())));
  }
  return result;
}

namespace {

// Past rows that their score does not send away.
int Stays(const std::vector<float>& scores) {
  return static_cast<int>(std::count_if(scores.begin(), scores.end(),
                                        [](float s) { return s != -std::numeric_limits<float>::infinity(); }));
}

void ShareByScores(const CompressionSpec& spec, int average, absl::Span<const std::vector<float>> scores,
                   std::vector<RowBudget>& budgets) {
  const bool over = std::any_of(scores.begin(), scores.end(), [&](const std::vector<float>& head) {
    return static_cast<int>(head.size()) > average;
  });
  if (!over) return;
  // Heads without scores keep what they have; the others share what is theirs.
  std::vector<std::vector<float>> sharing;
  std::vector<size_t> head_of;
  for (size_t head = 0; head < scores.size(); ++head) {
    if (scores[head].empty()) continue;
    sharing.push_back(scores[head]);
    head_of.push_back(head);
  }
  const AdaOptions options = {.floor = spec.ada_floor, .normalize = spec.ada_normalize};
  const AdaRows ada = AdaPastRows(sharing, average, options);
  for (size_t i = 0; i < sharing.size(); ++i) budgets[head_of[i]].heavy = ada.rows[i];
}

}  // namespace

std::vector<RowBudget> HeadBudgets(const CompressionSpec& spec, const RowBudget& average,
                                   absl::Span<const std::vector<float>> scores) {
  std::vector<RowBudget> budgets(scores.size(), average);
  if (spec.head_budget == HeadBudgetRule::kAda) ShareByScores(spec, average.heavy, scores, budgets);
  for (size_t head = 0; head < scores.size(); ++head) {
    if (scores[head].empty()) continue;
    const int stays = Stays(scores[head]);
    int& heavy = budgets[head].heavy;
    if (spec.head_budget == HeadBudgetRule::kNeeded) {
      heavy = stays;
    } else if (stays < static_cast<int>(scores[head].size())) {
      heavy = std::min(heavy, stays);
    }
  }
  return budgets;
}

}  // namespace tidepool
