#include "policies/retain/select.h"

#include <algorithm>
#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

RowBudget Budget(int sinks, int heavy, int recent) {
  RowBudget budget;
  budget.sinks = sinks;
  budget.heavy = heavy;
  budget.recent = recent;
  return budget;
}

TEST(SelectRowsTest, EverythingStaysWithinTheBudget) {
  for (int rows : {0, 1, 7}) {
    const Selection selection = SelectRows(rows, {}, Budget(0, 4, 3));
    EXPECT_EQ(static_cast<int>(selection.kept.size()), rows);
    EXPECT_THAT(selection.evicted, IsEmpty());
  }
}

TEST(SelectRowsTest, TheBestOfThePastAndTheLastStay) {
  const std::vector<float> scores = {0.1f, 0.9f, 0.5f, 0.9f, 0.2f, 0.0f, 0.0f};
  const Selection selection = SelectRows(7, scores, Budget(0, 2, 2));
  EXPECT_THAT(selection.kept, ElementsAre(1, 3, 5, 6));
  EXPECT_THAT(selection.evicted, ElementsAre(0, 2, 4));
}

TEST(SelectRowsTest, ScoresOfRecentRowsAreNotLookedAt) {
  EXPECT_THAT(SelectRows(5, {1, 3, 2}, Budget(0, 1, 2)).kept, ElementsAre(1, 3, 4));
  EXPECT_THAT(SelectRows(5, {1, 3, 2, 9, 9}, Budget(0, 1, 2)).kept, ElementsAre(1, 3, 4));
}

TEST(SelectRowsTest, SinksComeBeforeBetterScores) {
  const std::vector<float> scores = {0, 0, 5, 4, 9, 1, 1};
  EXPECT_THAT(SelectRows(7, scores, Budget(2, 3, 1)).kept, ElementsAre(0, 1, 4, 6));
  // Fewer heavy rows than sinks: the first ones (policies.md section 6.4).
  EXPECT_THAT(SelectRows(7, scores, Budget(4, 2, 1)).kept, ElementsAre(0, 1, 6));
  // No scores are needed when sinks are all there is.
  EXPECT_THAT(SelectRows(7, {}, Budget(3, 3, 2)).kept, ElementsAre(0, 1, 2, 5, 6));
}

TEST(SelectRowsTest, OneLeavesPerStepOnceTheBudgetIsFull) {
  std::vector<float> scores = {3, 1, 2, 5, 0, 0};
  const Selection selection = SelectRows(6, scores, Budget(0, 3, 2));
  EXPECT_THAT(selection.evicted, ElementsAre(1));
}

TEST(SelectRowsTest, KeptAndEvictedPartitionTheRowsWhateverTheScores) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    const int rows = static_cast<int>(random() % 40);
    const RowBudget budget =
        Budget(static_cast<int>(random() % 6), static_cast<int>(random() % 12), static_cast<int>(random() % 12));
    std::vector<float> scores(rows);
    for (float& score : scores) {
      score = random() % 10 == 0 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(random() % 5);
    }
    const Selection selection = SelectRows(rows, scores, budget);
    ASSERT_EQ(static_cast<int>(selection.kept.size()), std::min(rows, budget.total()));
    std::vector<int32_t> all;
    std::merge(selection.kept.begin(), selection.kept.end(), selection.evicted.begin(), selection.evicted.end(),
               std::back_inserter(all));
    ASSERT_EQ(static_cast<int>(all.size()), rows);
    for (int i = 0; i < rows; ++i) ASSERT_EQ(all[i], i);
    for (int i = std::max(0, rows - budget.recent); i < rows; ++i) {
      ASSERT_TRUE(std::binary_search(selection.kept.begin(), selection.kept.end(), i));
    }
  }
}

}  // namespace
}  // namespace tidepool
