#include "policies/retain/head_budget.h"

#include <limits>
#include <numeric>
#include <random>

#include "gtest/gtest.h"
#include "policies/retain/preset_table.h"

namespace tidepool {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

CompressionSpec Ada(double floor, bool normalize = false) {
  CompressionSpec spec = FindPreset("ada-snapkv")->make();
  spec.ada_floor = floor;
  spec.ada_normalize = normalize;
  return spec;
}

RowBudget Rows(int heavy, int recent) {
  RowBudget budget;
  budget.heavy = heavy;
  budget.recent = recent;
  return budget;
}

TEST(HeadBudgetTest, UniformHeadsAndASetOfTheLayerHaveTheBudgetOfTheLayer) {
  const std::vector<std::vector<float>> scores(3, std::vector<float>(10, 1.0f));
  for (const char* preset : {"snapkv", "tova"}) {
    EXPECT_EQ(HeadBudgets(FindPreset(preset)->make(), Rows(5, 2), scores), std::vector<RowBudget>(3, Rows(5, 2)));
  }
}

TEST(HeadBudgetTest, WithoutAFloorAHeadHasItsRowsAmongTheBestOfAll) {
  const std::vector<std::vector<float>> scores = {{9, 8, 7, 1}, {6, 2, 2, 2}};
  EXPECT_EQ(HeadBudgets(Ada(0), Rows(2, 3), scores), (std::vector<RowBudget>{Rows(3, 3), Rows(1, 3)}));
  EXPECT_EQ(AdaPastRows(scores, 2, {.floor = 0}).count, (std::vector<int>{3, 1}));
}

TEST(HeadBudgetTest, AFloorOfOneMakesHeadsEqual) {
  const std::vector<std::vector<float>> scores = {{9, 8, 7, 1}, {6, 2, 2, 2}};
  EXPECT_EQ(HeadBudgets(Ada(1), Rows(2, 3), scores), std::vector<RowBudget>(2, Rows(2, 3)));
}

TEST(HeadBudgetTest, HalvesAreRoundedToEvenAndTheFloorIsCutToWholeRows) {
  // average 3, floor 0.5: int(1.5) = 1 row, and half of the counts 6, 3, 0: 3 + 1, 1.5 + 1 -> 2, 0 + 1.
  const std::vector<std::vector<float>> scores = {{9, 9, 9, 9, 9, 9}, {8, 8, 8, 1, 1, 1}, {0, 0, 0, 0, 0, 0}};
  const AdaRows ada = AdaPastRows(scores, 3, {.floor = 0.5});
  EXPECT_EQ(ada.count, (std::vector<int>{6, 3, 0}));
  EXPECT_EQ(ada.rows, (std::vector<int>{4, 2, 1}));
}

TEST(HeadBudgetTest, EqualScoresGoToTheLowerHead) {
  const std::vector<std::vector<float>> scores(3, std::vector<float>(4, 1.0f));
  EXPECT_EQ(AdaPastRows(scores, 2, {.floor = 0}).count, (std::vector<int>{4, 2, 0}));
}

TEST(HeadBudgetTest, NormalizingFavoursHeadsWhoseBestRowsHoldMostOfTheirScore) {
  // Head 0 is larger everywhere but flat; head 1 has one row that holds nearly everything.
  const std::vector<std::vector<float>> scores = {{1.0f, 1.0f, 1.0f, 1.0f, 1.0f}, {0.9f, 0.01f, 0.01f, 0.01f, 0.01f}};
  EXPECT_EQ(AdaPastRows(scores, 1, {.floor = 0, .normalize = false}).count, (std::vector<int>{2, 0}));
  EXPECT_EQ(AdaPastRows(scores, 1, {.floor = 0, .normalize = true}).count, (std::vector<int>{1, 1}));
}

TEST(HeadBudgetTest, NoRowIsLostToRoundingWhenAllPastRowsFit) {
  // 54 rows under an average of 54: 54 * 0.8 + int(10.8) rounds to 53.
  const std::vector<std::vector<float>> scores(2, std::vector<float>(54, 1.0f));
  EXPECT_EQ(AdaPastRows(scores, 54, {}).rows[0], 53);
  EXPECT_EQ(HeadBudgets(Ada(0.2), Rows(54, 8), scores), std::vector<RowBudget>(2, Rows(54, 8)));
}

TEST(HeadBudgetTest, HeadsOfUnequalLengthShareWhatTheyHaveAndHeadsWithoutScoresKeepTheirs) {
  const std::vector<std::vector<float>> scores = {{5, 5, 5, 5, 5, 5}, {}, {9}};
  const std::vector<RowBudget> budgets = HeadBudgets(Ada(0), Rows(2, 1), scores);
  EXPECT_EQ(budgets, (std::vector<RowBudget>{Rows(3, 1), Rows(2, 1), Rows(1, 1)}));
  const std::vector<std::vector<float>> uneven = {std::vector<float>(30, 1.0f), {9}};  // a floor of two rows
  EXPECT_EQ(AdaPastRows(uneven, 10, {.floor = 0.2}).rows[1], 1);
}

TEST(HeadBudgetTest, ScoresThatAreNoNumbersComeLastAndBreakNothing) {
  for (const bool normalize : {false, true}) {
    const std::vector<std::vector<float>> all(2, std::vector<float>(9, kNan));
    const AdaRows ada = AdaPastRows(all, 4, {.floor = 0.2, .normalize = normalize});
    EXPECT_EQ(std::accumulate(ada.count.begin(), ada.count.end(), 0), 8);
    const std::vector<std::vector<float>> zero(2, std::vector<float>(9, 0.0f));
    EXPECT_EQ(AdaPastRows(zero, 4, {.floor = 0.2, .normalize = normalize}).count, (std::vector<int>{8, 0}));
  }
  const std::vector<std::vector<float>> some = {{kNan, kNan, kNan, 1}, {1, 1, 1, 1}};
  EXPECT_EQ(AdaPastRows(some, 2, {.floor = 0}).count, (std::vector<int>{1, 3}));
}

TEST(HeadBudgetTest, TheSumDiffersFromTheAverageByLessThanARowForEachHead) {
  std::mt19937 random(7);
  std::gamma_distribution<float> score(0.3f);
  for (int round = 0; round < 200; ++round) {
    const int heads = 1 + round % 8, average = 1 + round % 23;
    std::vector<std::vector<float>> scores(heads);
    for (std::vector<float>& head : scores) {
      for (int i = 0; i < 60; ++i) head.push_back(score(random));
    }
    const AdaRows ada = AdaPastRows(scores, average, {.floor = 0.2, .normalize = round % 2 == 1});
    const int sum = std::accumulate(ada.rows.begin(), ada.rows.end(), 0);
    EXPECT_LE(sum, heads * average + heads / 2);
    // The floor of each head is cut down by up to one row.
    EXPECT_GE(sum, heads * average - heads - heads / 2);
    for (int rows : ada.rows) EXPECT_GE(rows, static_cast<int>(average * 0.2));
  }
}

}  // namespace
}  // namespace tidepool
