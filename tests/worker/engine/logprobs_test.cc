#include "worker/engine/logprobs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "worker/engine/engine.h"

namespace tidepool {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(LogprobsTest, EqualsTheFormulaInLongDouble) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(3, 6);
  for (const int vocabulary : {1, 2, 255, 256, 257, 3000}) {
    std::vector<float> logits(vocabulary);
    for (float& logit : logits) logit = normal(random);
    long double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<long double>(logit));
    EXPECT_NEAR(LogSumExp(logits), static_cast<double>(std::log(sum)), 1e-13);
    for (int32_t token = 0; token < vocabulary; token += 1 + vocabulary / 9) {
      const TokenLogprob result = LogprobOf(logits, token, 0);
      EXPECT_EQ(result.token, token);
      EXPECT_FLOAT_EQ(result.logprob, static_cast<float>(logits[token] - std::log(sum)));
      EXPECT_TRUE(result.top.empty());
    }
  }
}

TEST(LogprobsTest, ProbabilitiesOfAllTokensAddToOne) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(1000);
  for (float& logit : logits) logit = normal(random);
  double sum = 0;
  for (int32_t token = 0; token < 1000; ++token)
    sum += std::exp(static_cast<double>(LogprobOf(logits, token, 0).logprob));
  EXPECT_NEAR(sum, 1, 1e-6);
}

TEST(LogprobsTest, AlternativesAreDescendingWithTiesByIdAndIncludeTheToken) {
  const TokenLogprob result = LogprobOf(std::vector<float>{1, 4, 2, 4, 0}, 3, 4);
  ASSERT_EQ(result.top.size(), 4u);
  const int32_t order[] = {1, 3, 2, 0};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(result.top[i].first, order[i]);
  EXPECT_EQ(result.top[1].second, result.logprob);
  EXPECT_EQ(result.top[0].second, result.top[1].second);
  EXPECT_FLOAT_EQ(result.top[2].second, result.logprob - 2);
}

TEST(LogprobsTest, MoreAlternativesThanTokensGivesAllTokens) {
  EXPECT_EQ(LogprobOf(std::vector<float>{1, 2}, 0, 20).top.size(), 2u);
}

TEST(LogprobsTest, HugeLogitsNeitherOverflowNorGiveAPositiveLogprob) {
  EXPECT_EQ(LogprobOf(std::vector<float>{3e38f, -3e38f}, 0, 0).logprob, 0);
  EXPECT_FLOAT_EQ(LogprobOf(std::vector<float>{-3e38f, -3e38f}, 1, 0).logprob, 0);  // log 2 is lost beside 3e38
  EXPECT_FLOAT_EQ(LogprobOf(std::vector<float>{1000, 999}, 1, 0).logprob, -1.3132616f);
}

TEST(LogprobsTest, NanAndInfinityGiveNoNan) {
  const std::vector<float> logits = {kNan, 0, -kInf, 0};
  EXPECT_FLOAT_EQ(LogprobOf(logits, 1, 0).logprob, -std::log(2.0f));
  EXPECT_EQ(LogprobOf(logits, 0, 0).logprob, -kInf);
  EXPECT_EQ(LogprobOf(logits, 2, 0).logprob, -kInf);
  EXPECT_EQ(LogprobOf(logits, 1, 4).top.size(), 2u);
  EXPECT_EQ(LogprobOf(std::vector<float>{kInf, 0}, 0, 0).logprob, 0);
  EXPECT_EQ(LogprobOf(std::vector<float>{kNan, kNan}, 0, 2).logprob, -kInf);
}

}  // namespace
}  // namespace tidepool
