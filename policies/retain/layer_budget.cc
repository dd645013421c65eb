#include "policies/retain/layer_budget.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

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

std::vector<LayerBudget> LayerBudgets(const CompressionSpec& spec, const LayerBudgetInput& input) {
  auto split = [&](int total) {
    RowBudget rows;
    switch (spec.score) {
      case ScoreRule::kNone: rows.recent = total; break;
      case ScoreRule::kPosition:
        rows.sinks = rows.heavy = std::min(spec.sink_tokens, total - 1);
        rows.recent = total - rows.heavy;
        break;
      case ScoreRule::kWindow:
        rows.recent = std::min(spec.window_tokens, total);
        rows.heavy = total - rows.recent;
        break;
      default:
        rows.recent = std::clamp(static_cast<int>(total * spec.recent_share), 1, total);
        rows.heavy = total - rows.recent;
        rows.sinks = spec.layer_budget == LayerBudgetRule::kVariance ? spec.sink_tokens : 0;
        break;
    }
    return rows;
  };
  std::vector<LayerBudget> budgets(input.layers);
  for (int layer = 0; layer < input.layers; ++layer) budgets[layer].dense = IsDenseLayer(spec, layer, input.layers);
  // The other rules have no preset yet (ValidateCompression).
  TIDEPOOL_CHECK(spec.layer_budget == LayerBudgetRule::kAll || spec.layer_budget == LayerBudgetRule::kUniform ||
                 spec.layer_budget == LayerBudgetRule::kVariance);
  // What fits is kept whole: unequal layers would evict from some of them for nothing.
  if (spec.layer_budget == LayerBudgetRule::kVariance && input.kept_rows < input.tokens) {
    TIDEPOOL_CHECK(static_cast<int>(input.variance_concentration.size()) == input.layers);
    // D2O: rho is the whole ratio, heavy and recent take their shares of it and are cut to whole tokens one by one.
    const double rho = static_cast<double>(input.kept_rows) / input.tokens;
    const std::vector<double> ratios = VarianceRatios(input.variance_concentration, rho);
    for (int layer = 0; layer < input.layers; ++layer) {
      RowBudget& rows = budgets[layer].rows;
      rows.sinks = spec.sink_tokens;
      // The small term undoes the rounding of rho where a product is a whole number.
      rows.heavy = std::max(1, static_cast<int>(input.tokens * ratios[layer] * (1 - spec.recent_share) + 1e-9));
      rows.recent = std::max(1, static_cast<int>(input.tokens * ratios[layer] * spec.recent_share + 1e-9));
    }
    return budgets;
  }
  for (LayerBudget& budget : budgets) budget.rows = split(std::max(input.kept_rows, 1));
  return budgets;
}

std::vector<RowBudget> HeadBudgets(HeadBudgetRule rule, const RowBudget& average,
                                   absl::Span<const std::vector<float>> scores) {
  TIDEPOOL_CHECK(rule == HeadBudgetRule::kUniform);
  return std::vector<RowBudget>(scores.size(), average);
}

}  // namespace tidepool
