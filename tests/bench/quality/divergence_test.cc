#include "bench/quality/divergence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace tidepool::quality {
namespace {

// The `best` tokens of a distribution, as LogprobOf gives them.
TokenLogprob Top(const std::vector<double>& probabilities, size_t best) {
  std::vector<int32_t> order(probabilities.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return probabilities[a] > probabilities[b]; });
  TokenLogprob logprob;
  for (size_t i = 0; i < best; ++i) {
    logprob.top.emplace_back(order[i], static_cast<float>(std::log(probabilities[order[i]])));
  }
  return logprob;
}

std::vector<double> RandomDistribution(std::mt19937& random, int tokens) {
  std::vector<double> p(tokens);
  double sum = 0;
  for (double& x : p) sum += x = 1e-4 + std::exp(static_cast<double>(random() % 1000) / 150.0);
  for (double& x : p) x /= sum;
  return p;
}

TEST(DivergenceTest, EqualDistributionsDivergeByNothing) {
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) {
    const std::vector<double> p = RandomDistribution(random, 50);
    EXPECT_NEAR(KlLowerBound(Top(p, 20), Top(p, 20)), 0, 1e-6);
  }
}

TEST(DivergenceTest, IsTheDivergenceWhenEveryTokenIsKnown) {
  const std::vector<double> p = {0.5, 0.3, 0.2}, q = {0.1, 0.2, 0.7};
  double expected = 0;
  for (int i = 0; i < 3; ++i) expected += p[i] * std::log(p[i] / q[i]);
  EXPECT_NEAR(KlLowerBound(Top(p, 3), Top(q, 3)), expected, 1e-5);
  EXPECT_NEAR(KlLowerBound(Top(p, 2), Top(q, 2)), 0.3 * std::log(0.3 / 0.2) + 0.7 * std::log(0.7 / 0.8), 1e-5)
      << "of both lists, only token 1 is in both";
}

TEST(DivergenceTest, IsNeverAboveTheDivergence) {
  std::mt19937 random(2);
  for (int i = 0; i < 500; ++i) {
    const std::vector<double> p = RandomDistribution(random, 60), q = RandomDistribution(random, 60);
    double exact = 0;
    for (size_t t = 0; t < p.size(); ++t) exact += p[t] * std::log(p[t] / q[t]);
    double before = 0;
    for (size_t best : {5, 20, 60}) {
      const double bound = KlLowerBound(Top(p, best), Top(q, best));
      EXPECT_LE(bound, exact + 1e-4);
      EXPECT_GE(bound, 0);
      before = bound;
    }
    EXPECT_NEAR(before, exact, 1e-3) << "with the whole vocabulary";
  }
}

TEST(DivergenceTest, AgreementCountsEqualFirstChoicesAndTheRunBeforeTheFirstDifference) {
  std::vector<TokenLogprob> other(4);
  const int32_t chosen[] = {7, 8, 1, 9};
  for (int i = 0; i < 4; ++i) other[i].top = {{chosen[i], -0.1f}};
  const Agreement agreement = Agree({7, 8, 2, 9}, other);
  EXPECT_EQ(agreement.same, 3);
  EXPECT_EQ(agreement.before_first_difference, 2);
  EXPECT_EQ(Agree({7, 8, 1, 9}, other).before_first_difference, 4);
  EXPECT_EQ(Agree({6, 8, 1, 9}, other).before_first_difference, 0);
}

}  // namespace
}  // namespace tidepool::quality
