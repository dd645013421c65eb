#include "policies/retain/aha_scores.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "policies/retain/select.h"

namespace tidepool {
namespace {

TEST(AhaScoresTest, TheScaleIsZeroUpToTheBudgetAndThenGrowsWithTheLogarithm) {
  EXPECT_EQ(AhaQueryScale(1, 100), 0);
  EXPECT_EQ(AhaQueryScale(100, 100), 0);
  EXPECT_GT(AhaQueryScale(101, 100), 0);
  // At budget * sqrt(e) tokens it is the ordinary softmax.
  EXPECT_NEAR(AhaQueryScale(std::llround(1e9 * std::sqrt(std::exp(1.0))), 1'000'000'000), 1.0, 1e-8);
  EXPECT_NEAR(AhaLambda(1649, 1000, 64), AhaQueryScale(1649, 1000) / 8, 1e-12);
}

TEST(AhaScoresTest, NormsAreSumsOfSquaresOfEachRow) {
  EXPECT_EQ(SquaredNorms({3, 4, 1, 2}, 2), (std::vector<double>{25, 5}));
  EXPECT_TRUE(SquaredNorms({}, 4).empty());
}

TEST(AhaScoresTest, TheScoreIsTheSumOfTheRowsTimesThePrior) {
  AhaScores state(2, 1);
  state.SetPrompt({0.5f, 0.25f, 0.25f, 0.1f, 0.6f, 0.3f}, {4.0, 2.0, 1.0});
  const std::vector<float> scores = state.Scores();
  EXPECT_FLOAT_EQ(scores[0], 0.6f);
  EXPECT_FLOAT_EQ(scores[1], 0.85f * 0.5f);
  EXPECT_FLOAT_EQ(scores[2], 0.55f * 0.25f);
}

TEST(AhaScoresTest, ThePriorIsPooledWithZerosBeyondTheEnds) {
  AhaScores state(1, 3);
  state.SetPrompt({1.0f, 1.0f, 1.0f, 1.0f}, {3.0, 3.0, 9.0, 0.0});  // pooled: 2, 5, 4, 3
  const std::vector<float> scores = state.Scores();
  const float expected[] = {0.4f, 1.0f, 0.8f, 0.6f};
  for (int i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(scores[i], expected[i]);
}

TEST(AhaScoresTest, ANewRowEntersUnpooledAndALargerOneRaisesTheMaximumForLaterRows) {
  AhaScores state(8, 3);
  state.SetPrompt({0.5f, 0.5f}, {2.0, 4.0});  // pooled 2, 2: the maximum is 2
  state.Append(8.0, {0.25f, 0.25f, 0.5f});    // prior 1, the maximum becomes 8
  state.Append(2.0, {0.0f, 0.0f, 0.0f, 1.0f});
  const std::vector<float> scores = state.Scores();
  EXPECT_FLOAT_EQ(scores[0], 0.75f);  // what was there keeps its prior
  EXPECT_FLOAT_EQ(scores[2], 0.5f);
  EXPECT_FLOAT_EQ(scores[3], 0.25f);
}

TEST(AhaScoresTest, OnlyTheLastRowsOfAttentionCount) {
  AhaScores state(2, 1);
  state.SetPrompt({1.0f}, {1.0});
  state.Append(1.0, {0.25f, 0.75f});
  EXPECT_FLOAT_EQ(state.Scores()[0], 1.25f);  // a short prompt left room for one more
  state.Append(1.0, {0.25f, 0.25f, 0.5f});
  EXPECT_FLOAT_EQ(state.Scores()[0], 0.5f);
  EXPECT_FLOAT_EQ(state.Scores()[1], 1.0f);
  EXPECT_FLOAT_EQ(state.Scores()[2], 0.5f);
}

TEST(AhaScoresTest, WithOneRowOfHistoryTheScoreIsTheNewestAttention) {
  AhaScores state(1, 1);
  state.SetPrompt({0.9f, 0.1f}, {1.0, 1.0});
  state.Append(1.0, {0.2f, 0.3f, 0.5f});
  EXPECT_EQ(state.Scores(), (std::vector<float>{0.2f, 0.3f, 0.5f}));
}

TEST(AhaScoresTest, KeptRowsKeepTheirAttentionAndPrior) {
  AhaScores state(2, 1);
  state.SetPrompt({0.5f, 0.3f, 0.2f}, {1.0, 2.0, 4.0});
  const std::vector<float> before = state.Scores();
  state.Keep({0, 2});
  EXPECT_EQ(state.rows(), 2);
  EXPECT_EQ(state.Scores(), (std::vector<float>{before[0], before[2]}));
  state.Append(4.0, {0.5f, 0.25f, 0.25f});
  EXPECT_FLOAT_EQ(state.Scores()[0], 0.25f);
  EXPECT_FLOAT_EQ(state.Scores()[1], 0.45f);
}

TEST(AhaScoresTest, ValuesOfZeroLeaveTheAttentionAlone) {
  AhaScores state(1, 3);
  state.SetPrompt({0.5f, 0.5f}, {0.0, 0.0});
  EXPECT_EQ(state.Scores(), (std::vector<float>{0.5f, 0.5f}));
  state.Append(0.0, {0.2f, 0.2f, 0.6f});
  EXPECT_FLOAT_EQ(state.Scores()[2], 0.6f);
}

TEST(AhaScoresTest, NotANumberStaysInItsRowsAndTheChoiceGoesOn) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  AhaScores state(2, 1);
  state.SetPrompt({nan, 0.5f, 0.3f, 0.2f}, {1.0, 1.0, 1.0, 1.0});
  state.Append(std::numeric_limits<double>::quiet_NaN(), {0.1f, 0.1f, 0.4f, 0.2f, 0.2f});
  RowBudget budget;
  budget.heavy = 2;
  budget.recent = 1;
  EXPECT_EQ(SelectRows(state.rows(), state.Scores(), budget).kept, (std::vector<int32_t>{1, 2, 4}));
}

}  // namespace
}  // namespace tidepool
