#include "policies/retain/bind_budget.h"

#include <algorithm>

#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

int Held(const LayerBudget& budget, int tokens) {
  return budget.dense ? tokens : std::min(tokens, budget.rows.total());
}

RowBudget WithTotal(const CompressionSpec& spec, const LayerBudget& budget, int total) {
  if (budget.score == nullptr) return {.recent = total};
  if (!budget.lazy) return budget.score->Split(spec, total);
  const int sinks = std::min(budget.rows.sinks, total - 1);
  return {.sinks = sinks, .heavy = sinks, .recent = total - sinks};
}

}  // namespace

bool BindLayerBudgets(const CompressionSpec& spec, int tokens, int64_t rows, absl::Span<const int> before,
                      std::vector<LayerBudget>& budgets) {
  int64_t wanted = 0, fixed = 0;  // fixed: what nobody gives up
  const int least = std::max(1, LeastKeptRows(spec));
  for (const LayerBudget& budget : budgets) {
    wanted += Held(budget, tokens);
    fixed += budget.dense ? tokens : std::min<int64_t>(Held(budget, tokens), least);
  }
  if (wanted <= rows) return true;
  const int64_t left = std::max<int64_t>(0, rows - fixed), free = wanted - fixed;
  std::vector<int> totals(budgets.size(), 0);
  int64_t spare = left;
  for (size_t layer = 0; layer < budgets.size(); ++layer) {
    if (budgets[layer].dense) continue;
    const int64_t held = Held(budgets[layer], tokens), floor = std::min<int64_t>(held, least);
    const int64_t share = free > 0 ? (held - floor) * left / free : 0;
    totals[layer] = static_cast<int>(std::max<int64_t>(1, floor + share));
    spare -= share;
  }
  for (size_t layer = 0; layer < budgets.size(); ++layer) {
    if (budgets[layer].dense) continue;
    if (spare > 0 && !before.empty() && totals[layer] < std::min(before[layer], Held(budgets[layer], tokens))) {
      ++totals[layer];
      --spare;
    }
    budgets[layer].rows = WithTotal(spec, budgets[layer], totals[layer]);
  }
  return fixed <= rows;
}

void BindHeadBudgets(const RowBudget& average, std::vector<RowBudget>& heads) {
  int64_t excess = -int64_t{average.heavy} * static_cast<int64_t>(heads.size());
  for (const RowBudget& head : heads) excess += head.heavy;
  for (; excess > 0; --excess) {
    --std::max_element(heads.begin(), heads.end(), [](const RowBudget& a, const RowBudget& b) {
        return a.heavy < b.heavy;
      })->heavy;
  }
}

}  // namespace tidepool
