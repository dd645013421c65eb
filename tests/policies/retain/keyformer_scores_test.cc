#include "policies/retain/keyformer_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "gtest/gtest.h"

namespace tidepool {
namespace {

KeyformerNoise Noise(uint64_t seed, int layer = 0, int head = 0) {
  KeyformerNoise noise;
  noise.seed = seed;
  noise.layer = layer;
  noise.query_head = head;
  return noise;
}

TEST(KeyformerScoresTest, TheNoiseHasTheMomentsOfAGumbelVariable) {
  constexpr int kSide = 300;
  double sum = 0, squares = 0;
  int below_zero = 0;
  for (int query = 0; query < kSide; ++query) {
    for (int key = 0; key < kSide; ++key) {
      const double x = GumbelNoise(Noise(1), query, key);
      ASSERT_TRUE(std::isfinite(x));
      sum += x;
      squares += x * x;
      below_zero += x < 0;
    }
  }
  const double count = kSide * kSide, mean = sum / count;
  // Five standard errors: the mean's is sqrt(variance / count); the variance's about sqrt(4.4 variance^2 / count).
  const double variance = M_PI * M_PI / 6;
  EXPECT_NEAR(mean, 0.5772156649, 5 * std::sqrt(variance / count));
  EXPECT_NEAR(squares / count - mean * mean, variance, 5 * variance * std::sqrt(4.4 / count));
  EXPECT_NEAR(below_zero / count, std::exp(-1.0), 5 * std::sqrt(0.25 / count));
}

TEST(KeyformerScoresTest, TheNoiseDependsOnEachCoordinateAndOnNothingElse) {
  std::set<double> values;
  for (uint64_t seed : {0, 1}) {
    for (int layer : {0, 1}) {
      for (int head : {0, 1}) {
        for (int query : {0, 1}) {
          for (int key : {0, 1}) values.insert(GumbelNoise(Noise(seed, layer, head), query, key));
        }
      }
    }
  }
  EXPECT_EQ(values.size(), 32u);
  EXPECT_EQ(GumbelNoise(Noise(7, 3, 2), 100, 50), GumbelNoise(Noise(7, 3, 2), 100, 50));
}

TEST(KeyformerScoresTest, RowsAreTheSoftmaxOfNoisyLogits) {
  const std::vector<float> logits = {1.0f, -2.0f, 0.5f, 3.0f};
  const std::vector<int32_t> positions = {0, 4, 5, 9};  // a cache with gaps
  for (const double temperature : {1.0, 1.7}) {
    std::vector<double> expected;
    for (size_t i = 0; i < logits.size(); ++i) {
      expected.push_back(std::exp((logits[i] + GumbelNoise(Noise(3, 1, 2), 9, positions[i])) / temperature));
    }
    const double sum = std::accumulate(expected.begin(), expected.end(), 0.0);
    const std::vector<float> row = KeyformerRow(logits, positions, Noise(3, 1, 2), 9, temperature);
    for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(row[i], expected[i] / sum, 1e-6);
  }
}

TEST(KeyformerScoresTest, ARowDoesNotChangeItsNoiseWhenOthersAreEvicted) {
  const std::vector<float> all = KeyformerRow({1, 2, 3}, {0, 1, 2}, Noise(5), 2, 1.0);
  const std::vector<float> rest = KeyformerRow({1, 3}, {0, 2}, Noise(5), 2, 1.0);
  EXPECT_NEAR(rest[0] / rest[1], all[0] / all[2], 1e-4 * all[0] / all[2]);
}

TEST(KeyformerScoresTest, HeatFlattensRows) {
  const std::vector<float> logits = {5, 0, 0, 0};
  const std::vector<int32_t> positions = {0, 1, 2, 3};
  const std::vector<float> cold = KeyformerRow(logits, positions, Noise(2), 3, 0.5);
  const std::vector<float> hot = KeyformerRow(logits, positions, Noise(2), 3, 50);
  EXPECT_GT(*std::max_element(cold.begin(), cold.end()), 0.9f);
  EXPECT_LT(*std::max_element(hot.begin(), hot.end()), 0.35f);
}

TEST(KeyformerScoresTest, TheTemperatureRisesByAHundredthForEachToken) {
  EXPECT_EQ(KeyformerTemperature(0), 1.0);
  EXPECT_DOUBLE_EQ(KeyformerTemperature(100), 2.0);
}

TEST(KeyformerScoresTest, LargeLogitsDoNotOverflowAndNoNumbersDoNotCrash) {
  const std::vector<float> row = KeyformerRow({1e30f, -1e30f, 0}, {0, 1, 2}, Noise(1), 2, 1.0);
  EXPECT_EQ(row, (std::vector<float>{1, 0, 0}));
  EXPECT_EQ(KeyformerRow({std::numeric_limits<float>::quiet_NaN(), 0}, {0, 1}, Noise(1), 1, 1.0).size(), 2u);
}

}  // namespace
}  // namespace tidepool
