#include "policies/retain/head_portfolio.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

int32_t TokensSeen(const PortfolioRows& rows) { return rows.positions.back() + 1; }

// Tokens in a query's window, its own among them.
int32_t Window(const HeadPolicy& policy, int32_t tokens) {
  return policy.window_share > 0 ? std::max(1, static_cast<int32_t>(policy.window_share * tokens)) : 0;
}

// What a policy keeps: a fixed set, and for each query the last `window` tokens up to its own.
struct Kept {
  std::vector<uint8_t> always;  // by row
  int32_t window = 0;
};

Kept PartsOf(const HeadPolicy& policy, const PortfolioRows& rows) {
  const int count = static_cast<int>(rows.positions.size());
  const int32_t tokens = TokensSeen(rows);
  Kept kept;
  kept.always.assign(count, policy.full ? 1 : 0);
  kept.window = Window(policy, tokens);
  std::fill_n(kept.always.begin(), std::min(rows.sinks, count), 1);
  for (int i = 0; i < count; ++i) {
    if (policy.special && rows.classes[i] == TokenClass::kSpecial) kept.always[i] = 1;
    if (policy.punctuation && rows.classes[i] == TokenClass::kPunctuation) kept.always[i] = 1;
  }
  if (policy.heavy_share > 0) {
    // Of what is left outside the last query's window.
    std::vector<int32_t> candidates;
    std::vector<float> sums;
    for (int i = 0; i < count && rows.positions[i] < tokens - kept.window; ++i) {
      if (kept.always[i]) continue;
      candidates.push_back(i);
      sums.push_back(rows.attention_sum[i]);
    }
    const int heavy = static_cast<int>(std::ceil(policy.heavy_share * tokens));
    for (int32_t i : TopIndices(sums, heavy)) kept.always[candidates[i]] = 1;
  }
  return kept;
}

double Recovered(const Kept& kept, const PortfolioInput& input) {
  const absl::Span<const int32_t> positions = input.rows.positions;
  const size_t keys = positions.size(), rows = input.attention.size() / keys;
  double mass = 0;
  for (size_t row = 0; row < rows; ++row) {
    const float* attention = input.attention.data() + row * keys;
    const int32_t own = positions.back() - input.queries + 1 + static_cast<int32_t>(row % input.queries);
    for (size_t i = 0; i < keys && positions[i] <= own; ++i) {
      if (kept.always[i] || positions[i] > own - kept.window) mass += attention[i];
    }
  }
  return mass / static_cast<double>(rows);
}

void CheckRows(const PortfolioRows& rows) {
  TIDEPOOL_CHECK(!rows.positions.empty() && rows.classes.size() == rows.positions.size());
  TIDEPOOL_CHECK(rows.attention_sum.size() == rows.positions.size() && rows.sinks >= 0);
}

}  // namespace

std::vector<HeadPolicy> FastGenPortfolio(double heavy_share, double window_share) {
  HeadPolicy policy = {.special = true};
  std::vector<HeadPolicy> portfolio = {policy};
  policy.punctuation = true;
  portfolio.push_back(policy);
  policy.heavy_share = heavy_share;
  portfolio.push_back(policy);
  policy.window_share = window_share;
  portfolio.push_back(policy);
  policy.full = true;
  portfolio.push_back(policy);
  return portfolio;
}

std::vector<float> AttentionSums(absl::Span<const float> attention, int queries, int rows) {
  TIDEPOOL_CHECK(queries >= 1 && rows >= 1 && attention.size() % (size_t{1} * queries * rows) == 0);
  std::vector<double> sums(rows, 0.0);
  for (size_t at = 0; at < attention.size(); at += rows) {
    for (int i = 0; i < rows; ++i) sums[i] += attention[at + i];
  }
  const double group = static_cast<double>(attention.size() / (size_t{1} * queries * rows));
  std::vector<float> means;
  for (double sum : sums) means.push_back(static_cast<float>(sum / group));
  return means;
}

std::vector<uint8_t> RowsOfPolicy(const HeadPolicy& policy, const PortfolioRows& rows) {
  CheckRows(rows);
  Kept kept = PartsOf(policy, rows);
  for (size_t i = 0; i < kept.always.size(); ++i) {
    if (rows.positions[i] >= TokensSeen(rows) - kept.window) kept.always[i] = 1;
  }
  return std::move(kept.always);
}

std::vector<float> PolicyScores(const HeadPolicy& policy, const PortfolioRows& rows) {
  const std::vector<uint8_t> kept = RowsOfPolicy(policy, rows);
  std::vector<float> scores(kept.size(), -std::numeric_limits<float>::infinity());
  const int32_t outside = TokensSeen(rows) - Window(policy, TokensSeen(rows));  // the window's first position
  std::vector<int32_t> window, heavy;                                           // rows, the first to stay first
  for (size_t i = kept.size(); i-- > 0;) {
    if (!kept[i]) continue;
    // A share that grows with the sum and stays below 1: of special tokens the most attended stay.
    const float received = rows.attention_sum[i] >= 0 ? rows.attention_sum[i] : 0.0f;
    const float share = received / (1 + received);
    if (i < static_cast<size_t>(rows.sinks)) {
      scores[i] = 4;
    } else if (policy.special && rows.classes[i] == TokenClass::kSpecial) {
      scores[i] = 3 + share;
    } else {
      (rows.positions[i] >= outside ? window : heavy).push_back(static_cast<int32_t>(i));
    }
  }
  std::reverse(heavy.begin(), heavy.end());  // of equals the older
  // Sums are not negative; what is no number goes first.
  auto sum = [&](int32_t i) { return rows.attention_sum[i] >= 0 ? rows.attention_sum[i] : -1.0f; };
  std::stable_sort(heavy.begin(), heavy.end(), [&](int32_t a, int32_t b) { return sum(a) > sum(b); });
  for (const std::vector<int32_t>& part : {window, heavy}) {
    for (size_t rank = 0; rank < part.size(); ++rank) {
      scores[part[rank]] = 1 - static_cast<float>(rank) / static_cast<float>(part.size());
    }
  }
  return scores;
}

PortfolioChoice ChooseHeadPolicy(absl::Span<const HeadPolicy> portfolio, const PortfolioInput& input) {
  TIDEPOOL_CHECK(!portfolio.empty() && !input.attention.empty() && input.queries >= 1);
  const int keys = static_cast<int>(input.rows.positions.size());
  const std::vector<float> sums = AttentionSums(input.attention, input.queries, keys);
  PortfolioRows rows = input.rows;
  rows.attention_sum = sums;
  CheckRows(rows);
  PortfolioChoice choice;
  for (size_t policy = 0; policy < portfolio.size(); ++policy) {
    choice.policy = static_cast<int>(policy);
    choice.recovered = Recovered(PartsOf(portfolio[policy], rows), input);
    const bool enough = choice.recovered >= input.least_recovered;  // false for NaN
    if (!enough && policy + 1 < portfolio.size()) continue;
    const std::vector<uint8_t> kept = RowsOfPolicy(portfolio[policy], rows);
    for (int i = 0; i < keys; ++i) {
      if (kept[i]) choice.kept.push_back(i);
    }
    break;
  }
  return choice;
}

}  // namespace tidepool
