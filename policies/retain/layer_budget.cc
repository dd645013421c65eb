#include "policies/retain/layer_budget.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "base/check.h"
#include "policies/retain/pyramid_budget.h"
#include "policies/retain/score_method.h"

namespace tidepool {

double VarianceConcentration(absl::Span<const absl::Span<const float>> column_sums) {
  std::vector<double> variances;
  for (absl::Span<const float> sums : column_sums) {
    TIDEPOOL_CHECK(sums.size() >= 2);
    double mean = 0;
    for (float x : sums) mean += x;
    mean /= static_cast<double>(sums.size());
    double squares = 0;
    for (float x : sums) squares += (x - mean) * (x - mean);
    variances.push_back(squares / static_cast<double>(sums.size() - 1));
  }
  const auto [low, high] = std::minmax_element(variances.begin(), variances.end());
  double sum = 0;
  for (double x : variances) sum += (x - *low) / (*high - *low + 1e-6);
  return sum / static_cast<double>(variances.size());
}

std::vector<double> VarianceRatios(absl::Span<const double> concentration, double rho) {
  const double least = *std::min_element(concentration.begin(), concentration.end());
  double sum = 0;
  for (double f : concentration) sum += std::exp(least - f);
  std::vector<double> ratios;
  for (double f : concentration) {
    ratios.push_back(
        std::clamp(std::exp(least - f) / sum * static_cast<double>(concentration.size()) * rho, 0.01, 1.0));
  }
  return ratios;
}

bool IsDenseLayer(const CompressionSpec& spec, int layer, int layers) {
  if (std::find(spec.dense_layers.begin(), spec.dense_layers.end(), layer) != spec.dense_layers.end()) return true;
  if (spec.layer_budget == LayerBudgetRule::kAll) return true;
  return spec.layer_budget == LayerBudgetRule::kVariance && !spec.dense_layers_override &&
         (layer == 0 || layer == 1 || layer == layers - 1);
}

namespace {

RowBudget SplitRows(const CompressionSpec& spec, const LayerBudget& budget, int total) {
  return budget.score != nullptr ? budget.score->Split(spec, total) : RowBudget{.recent = total};
}

void SetUniform(const CompressionSpec& spec, const LayerBudgetInput& input, std::vector<LayerBudget>& budgets) {
  for (LayerBudget& budget : budgets) budget.rows = SplitRows(spec, budget, std::max(input.kept_rows, 1));
}

void SetPyramid(const CompressionSpec& spec, const LayerBudgetInput& input, std::vector<LayerBudget>& budgets) {
  SetUniform(spec, input, budgets);
  const int window = FindScore(spec.score)->Window(spec);  // the same in every layer
  if (input.kept_rows <= window) return;
  const PyramidSchedule schedule =
      spec.layer_budget == LayerBudgetRule::kPyramid ? PyramidSchedule::kFactory : PyramidSchedule::kAda;
  const std::optional<std::vector<int>> past = PyramidPastRows(schedule, {.layers = input.layers,
                                                                          .tokens = input.tokens,
                                                                          .capacity = input.kept_rows,
                                                                          .window = window,
                                                                          .beta = spec.pyramid_beta});
  if (!past.has_value()) return;
  for (int layer = 0; layer < input.layers; ++layer) {
    budgets[layer].rows = SplitRows(spec, budgets[layer], std::max((*past)[layer] + window, 1));
  }
}

void SetByVariance(const CompressionSpec& spec, const LayerBudgetInput& input, std::vector<LayerBudget>& budgets) {
  // What fits is kept whole: unequal layers would evict from some of them for nothing.
  if (input.kept_rows >= input.tokens) {
    SetUniform(spec, input, budgets);
    return;
  }
  TIDEPOOL_CHECK(static_cast<int>(input.layer_weights.size()) == input.layers);
  const double rho = static_cast<double>(input.kept_rows) / input.tokens;
  const std::vector<double> ratios = VarianceRatios(input.layer_weights, rho);
  for (int layer = 0; layer < input.layers; ++layer) {
    budgets[layer].rows = budgets[layer].score->SplitShare(spec, input.tokens, ratios[layer]);
  }
}

void SetByShares(const CompressionSpec& spec, const LayerBudgetInput& input, std::vector<LayerBudget>& budgets) {
  if (input.layer_weights.empty()) return SetUniform(spec, input, budgets);  // nothing has had to go yet
  TIDEPOOL_CHECK(static_cast<int>(input.layer_weights.size()) == input.layers);
  const double rows = static_cast<double>(input.kept_rows) * input.layers;
  for (int layer = 0; layer < input.layers; ++layer) {
    const int total = static_cast<int>(std::lround(input.layer_weights[layer] * rows));
    budgets[layer].rows = SplitRows(spec, budgets[layer], std::max(total, LeastKeptRows(spec)));
  }
}

void SetLazy(const CompressionSpec& spec, const LayerBudgetInput& input, std::vector<LayerBudget>& budgets) {
  int64_t lazy_layers = 0;
  for (int layer = 0; layer < input.layers; ++layer) {
    LayerBudget& budget = budgets[layer];
    budget.lazy = std::find(input.lazy_layers.begin(), input.lazy_layers.end(), layer) != input.lazy_layers.end();
    if (budget.lazy) budget.score = FindScore("position");
    budget.each_step = budget.lazy && spec.schedule == Schedule::kPrefillAndStep;
    lazy_layers += budget.lazy;
  }
  const int64_t full_layers = input.layers - lazy_layers, all = int64_t{input.kept_rows} * input.layers;
  int64_t lazy_rows = std::min<int64_t>(int64_t{spec.lazy_sinks} + spec.lazy_recent, std::max(input.tokens, 1));
  int64_t full_rows = input.tokens;
  const bool binds = lazy_layers * lazy_rows + full_layers * full_rows > all;
  if (binds) {
    lazy_rows =
        std::max<int64_t>(1, std::min<int64_t>(lazy_rows, full_layers > 0 ? input.kept_rows / 2 : input.kept_rows));
    if (full_layers > 0) full_rows = std::max<int64_t>(1, (all - lazy_layers * lazy_rows) / full_layers);
  } else {
    lazy_rows = int64_t{spec.lazy_sinks} + spec.lazy_recent;
  }
  const int sinks = static_cast<int>(std::min<int64_t>(spec.lazy_sinks, lazy_rows - 1));
  for (LayerBudget& budget : budgets) {
    if (budget.lazy) {
      budget.rows = {.sinks = sinks, .heavy = sinks, .recent = static_cast<int>(lazy_rows) - sinks};
    } else if (binds) {
      budget.rows = SplitRows(spec, budget, static_cast<int>(full_rows));
    } else {
      budget.dense = true;
    }
  }
}

}  // namespace

std::vector<LayerBudget> LayerBudgets(const CompressionSpec& spec, const LayerBudgetInput& input) {
  std::vector<LayerBudget> budgets(input.layers);
  const ScoreMethod* score = FindScore(spec.score);
  for (int layer = 0; layer < input.layers; ++layer) {
    budgets[layer].dense = IsDenseLayer(spec, layer, input.layers);
    budgets[layer].score = score;
    budgets[layer].each_step = spec.schedule == Schedule::kPrefillAndStep;
  }
  switch (spec.layer_budget) {
    case LayerBudgetRule::kAll:
    case LayerBudgetRule::kUniform: SetUniform(spec, input, budgets); break;
    case LayerBudgetRule::kPyramid:
    case LayerBudgetRule::kAdaPyramid: SetPyramid(spec, input, budgets); break;
    case LayerBudgetRule::kVariance: SetByVariance(spec, input, budgets); break;
    case LayerBudgetRule::kLazy: SetLazy(spec, input, budgets); break;
    case LayerBudgetRule::kEqualMass:
    case LayerBudgetRule::kBestRows: SetByShares(spec, input, budgets); break;
  }
  return budgets;
}

}  // namespace tidepool
