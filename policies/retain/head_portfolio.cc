#include "policies/retain/head_portfolio.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

std::vector<float> ColumnSums(const PortfolioInput& input) {
  std::vector<double> sums(input.keys, 0.0);
  for (size_t row = 0; row < input.attention.size(); row += input.keys) {
    for (int i = 0; i < input.keys; ++i) sums[i] += input.attention[row + i];
  }
  return std::vector<float>(sums.begin(), sums.end());
}

// What a policy keeps: a fixed set, and for each query the last `window` keys up to its own.
struct Kept {
  std::vector<uint8_t> always;  // [keys]
  int window = 0;
};

Kept RowsOf(const HeadPolicy& policy, const PortfolioInput& input, const std::vector<float>& column_sums) {
  Kept kept;
  kept.always.assign(input.keys, policy.full ? 1 : 0);
  std::fill_n(kept.always.begin(), std::min(input.sinks, input.keys), 1);
  for (int i = 0; i < input.keys; ++i) {
    if (policy.special && input.classes[i] == TokenClass::kSpecial) kept.always[i] = 1;
    if (policy.punctuation && input.classes[i] == TokenClass::kPunctuation) kept.always[i] = 1;
  }
  if (policy.window_share > 0) kept.window = std::max(1, static_cast<int>(policy.window_share * input.keys));
  if (policy.heavy_share > 0) {
    // Of what is left outside the last query's window.
    std::vector<int32_t> candidates;
    std::vector<float> scores;
    for (int i = 0; i < std::max(0, input.keys - kept.window); ++i) {
      if (kept.always[i]) continue;
      candidates.push_back(i);
      scores.push_back(column_sums[i]);
    }
    const int heavy = static_cast<int>(std::ceil(policy.heavy_share * input.keys));
    for (int32_t i : TopIndices(scores, heavy)) kept.always[candidates[i]] = 1;
  }
  return kept;
}

double Recovered(const Kept& kept, const PortfolioInput& input) {
  double mass = 0;
  const size_t rows = input.attention.size() / input.keys;
  for (size_t row = 0; row < rows; ++row) {
    const float* attention = input.attention.data() + row * input.keys;
    const int own = input.keys - input.queries + static_cast<int>(row % input.queries);
    for (int i = 0; i <= own; ++i) {
      if (kept.always[i] || i > own - kept.window) mass += attention[i];
    }
  }
  return mass / static_cast<double>(rows);
}

}  // namespace

std::vector<HeadPolicy> FastGenPortfolio() {
  return {
      {.special = true},
      {.special = true, .punctuation = true},
      {.special = true, .punctuation = true, .heavy_share = 0.3},
      {.special = true, .punctuation = true, .heavy_share = 0.3, .window_share = 0.3},
      {.full = true},
  };
}

PortfolioChoice ChooseHeadPolicy(absl::Span<const HeadPolicy> portfolio, const PortfolioInput& input) {
  TIDEPOOL_CHECK(!portfolio.empty() && input.keys >= 1 && input.queries >= 1 && input.queries <= input.keys);
  TIDEPOOL_CHECK(static_cast<int>(input.classes.size()) == input.keys && !input.attention.empty());
  TIDEPOOL_CHECK(input.attention.size() % (static_cast<size_t>(input.queries) * input.keys) == 0);
  const std::vector<float> column_sums = ColumnSums(input);
  PortfolioChoice choice;
  for (size_t policy = 0; policy < portfolio.size(); ++policy) {
    const Kept kept = RowsOf(portfolio[policy], input, column_sums);
    choice.policy = static_cast<int>(policy);
    choice.recovered = Recovered(kept, input);
    const bool enough = choice.recovered >= input.least_recovered;  // false for NaN
    if (!enough && policy + 1 < portfolio.size()) continue;
    for (int i = 0; i < input.keys; ++i) {
      if (kept.always[i] || i >= input.keys - kept.window) choice.kept.push_back(i);
    }
    break;
  }
  return choice;
}

}  // namespace tidepool
