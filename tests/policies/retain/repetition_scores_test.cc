#include "policies/retain/repetition_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using testing::ElementsAre;

TEST(RepetitionScoresTest, SoftmaxIsOverSinksPieceAndRepetitionOnly) {
  // Sink 0, piece 2 to 3, repetition 4 to 5; row 1 belongs to another piece.
  const std::vector<float> attention = {0.25f, 0.5f,   0.125f, 0.0625f, 0.0625f, 0,  //
                                        0.25f, 0.125f, 0.125f, 0.25f,   0.125f,  0.125f};
  const RepeatedRows rows = {.rows = 6, .sinks = 1, .first = 2, .last = 4, .repetition = 4};
  EXPECT_THAT(RepetitionScores(attention, rows), ElementsAre(0.25f, 0.25f / 0.875f));
}

TEST(RepetitionScoresTest, SinksInThePieceCountOnce) {
  const RepeatedRows rows = {.rows = 3, .sinks = 4, .first = 0, .last = 2, .repetition = 2};
  EXPECT_THAT(RepetitionScores({0.5f, 0.25f, 0.25f}, rows), ElementsAre(0.5f, 0.25f));
}

TEST(RepetitionScoresTest, AQueryThatSeesNoneOfThemSaysNothing) {
  const RepeatedRows rows = {.rows = 3, .sinks = 0, .first = 1, .last = 2, .repetition = 2};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(RepetitionScores({1, 0, 0}, rows), ElementsAre(0));
  EXPECT_THAT(RepetitionScores({nan, nan, nan}, rows), ElementsAre(0));
}

// The authors' way: keys are gathered, then compared.
TEST(RepetitionScoresTest, EqualsASoftmaxOverGatheredKeys) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal(0, 3);
  for (int round = 0; round < 100; ++round) {
    const int context = 4 + round % 9, queries = 1 + round % 4, keys = context + queries, sinks = round % 4;
    const int first = static_cast<int>(random() % context);
    const int last = first + 1 + static_cast<int>(random() % (context - first));
    std::vector<float> attention, expected(last - first, 0.0f);
    for (int query = 0; query < queries; ++query) {
      const int visible = context + query + 1;
      std::vector<double> weight(keys, 0.0);
      double all = 0, gathered = 0;
      for (int i = 0; i < visible; ++i) {
        all += weight[i] = std::exp(normal(random));
        if (i < std::min(sinks, first) || (i >= first && i < last) || i >= context) gathered += weight[i];
      }
      for (double w : weight) attention.push_back(static_cast<float>(w / all));
      for (int i = first; i < last; ++i) {
        expected[i - first] = std::max(expected[i - first], static_cast<float>(weight[i] / gathered));
      }
    }
    const RepeatedRows rows = {.rows = keys, .sinks = sinks, .first = first, .last = last, .repetition = context};
    const std::vector<float> scores = RepetitionScores(attention, rows);
    ASSERT_EQ(scores.size(), expected.size());
    for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], expected[i], 1e-5 * expected[i]) << round;
  }
}

}  // namespace
}  // namespace tidepool
