#include "policies/retain/pyramid_budget.h"

#include <algorithm>
#include <numeric>

#include "gtest/gtest.h"

namespace tidepool {
namespace {

PyramidInput Input(int layers, int tokens, int capacity, int window, int beta = 20) {
  PyramidInput input;
  input.layers = layers;
  input.tokens = tokens;
  input.capacity = capacity;
  input.window = window;
  input.beta = beta;
  return input;
}

TEST(PyramidBudgetTest, APromptThatFitsHasNoSchedule) {
  for (const PyramidSchedule schedule : {PyramidSchedule::kFactory, PyramidSchedule::kAda}) {
    EXPECT_FALSE(PyramidPastRows(schedule, Input(8, 128, 128, 8)).has_value());
    EXPECT_FALSE(PyramidPastRows(schedule, Input(8, 3, 128, 8)).has_value());
    EXPECT_TRUE(PyramidPastRows(schedule, Input(8, 129, 128, 8)).has_value());
  }
}

TEST(PyramidBudgetTest, ASingleLayerHasTheAverage) {
  for (const PyramidSchedule schedule : {PyramidSchedule::kFactory, PyramidSchedule::kAda}) {
    EXPECT_EQ(*PyramidPastRows(schedule, Input(1, 1000, 128, 8)), std::vector<int>{120});
  }
}

TEST(PyramidBudgetTest, PyramidKvsLayersAreEqualBelowTwiceThePastBudget) {
  const std::vector<int> equal(4, 120), slope = *PyramidPastRows(PyramidSchedule::kAda, Input(4, 240, 128, 8));
  EXPECT_EQ(*PyramidPastRows(PyramidSchedule::kFactory, Input(4, 239, 128, 8)), equal);
  EXPECT_EQ(*PyramidPastRows(PyramidSchedule::kFactory, Input(4, 240, 128, 8)), slope);
  EXPECT_NE(slope, equal);
}

TEST(PyramidBudgetTest, LayersNeverGrowUpwardsAndNoneHasMoreThanThereIsOrLessThanNothing) {
  for (const PyramidSchedule schedule : {PyramidSchedule::kFactory, PyramidSchedule::kAda}) {
    for (int layers = 1; layers <= 40; layers += 3) {
      for (int capacity = 5; capacity <= 200; capacity += 13) {
        for (int tokens = capacity + 1; tokens <= 500; tokens += 37) {
          const std::vector<int> rows = *PyramidPastRows(schedule, Input(layers, tokens, capacity, 4, 1 + layers % 7));
          ASSERT_EQ(static_cast<int>(rows.size()), layers);
          EXPECT_LE(rows.front(), tokens - 4);
          EXPECT_GE(rows.back(), 0);
          EXPECT_TRUE(std::is_sorted(rows.rbegin(), rows.rend()));
          // The cut step only ever adds rows: less than one in each layer above the first, so half a row each.
          const int sum = std::accumulate(rows.begin(), rows.end(), 0), average = layers * (capacity - 4);
          EXPECT_GE(sum, average);
          EXPECT_LE(sum, average + layers * (layers - 1) / 2);
        }
      }
    }
  }
}

}  // namespace
}  // namespace tidepool
