#include "policies/retain/bind_budget.h"

#include <algorithm>
#include <random>

#include "gtest/gtest.h"
#include "policies/retain/preset_table.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

CompressionSpec Spec(const char* preset) {
  CompressionSpec spec = FindPreset(preset)->make();
  spec.window_tokens = 8;
  return spec;
}

LayerBudget Layer(const CompressionSpec& spec, int total, bool dense = false) {
  LayerBudget budget;
  budget.dense = dense;
  budget.score = FindScore(spec.score);
  budget.rows = budget.score->Split(spec, total);
  return budget;
}

int64_t Sum(const std::vector<LayerBudget>& budgets, int tokens) {
  int64_t sum = 0;
  for (const LayerBudget& budget : budgets) sum += budget.dense ? tokens : std::min(tokens, budget.rows.total());
  return sum;
}

TEST(BindBudgetTest, WhatFitsIsLeftAlone) {
  const CompressionSpec spec = Spec("snapkv");
  std::vector<LayerBudget> budgets = {Layer(spec, 40), Layer(spec, 20), Layer(spec, 500)};
  EXPECT_TRUE(BindLayerBudgets(spec, 100, 160, {}, budgets)) << "no layer has more than the tokens there are";
  EXPECT_EQ(budgets[0].rows.total(), 40);
  EXPECT_EQ(budgets[1].rows.total(), 20);
  EXPECT_EQ(budgets[2].rows.total(), 500);
}

TEST(BindBudgetTest, LayersGiveInProportionToWhatTheyHaveBeyondTheLeast) {
  const CompressionSpec spec = Spec("snapkv");  // the least is 9
  std::vector<LayerBudget> budgets = {Layer(spec, 49), Layer(spec, 29), Layer(spec, 9)};
  EXPECT_TRUE(BindLayerBudgets(spec, 100, 57, {}, budgets));
  EXPECT_EQ(budgets[0].rows.total(), 29);
  EXPECT_EQ(budgets[1].rows.total(), 19);
  EXPECT_EQ(budgets[2].rows.total(), 9);
  EXPECT_EQ(budgets[0].rows.recent, 8) << "the window stays";
}

TEST(BindBudgetTest, DenseLayersArePaidForByTheOthers) {
  const CompressionSpec spec = Spec("h2o");
  std::vector<LayerBudget> budgets = {Layer(spec, 40), Layer(spec, 40, /*dense=*/true), Layer(spec, 40)};
  EXPECT_TRUE(BindLayerBudgets(spec, 100, 120, {}, budgets));
  EXPECT_TRUE(budgets[1].dense);
  EXPECT_EQ(budgets[0].rows.total(), 10);
  EXPECT_EQ(budgets[2].rows.total(), 10);
}

TEST(BindBudgetTest, WhatCannotBeGivenIsReported) {
  const CompressionSpec spec = Spec("snapkv");
  std::vector<LayerBudget> budgets = {Layer(spec, 40), Layer(spec, 40, /*dense=*/true)};
  EXPECT_FALSE(BindLayerBudgets(spec, 100, 105, {}, budgets));
  EXPECT_EQ(budgets[0].rows.total(), 9);
}

TEST(BindBudgetTest, LazyLayersKeepTheirSinks) {
  const CompressionSpec spec = Spec("lighttransfer");
  LayerBudget lazy;
  lazy.lazy = true;
  lazy.score = FindScore("position");
  lazy.rows = {.sinks = 4, .heavy = 4, .recent = 60};
  std::vector<LayerBudget> budgets = {lazy, lazy};
  EXPECT_TRUE(BindLayerBudgets(spec, 100, 60, {}, budgets));
  EXPECT_EQ(budgets[0].rows, (RowBudget{.sinks = 4, .heavy = 4, .recent = 26}));
}

TEST(BindBudgetTest, RandomBudgetsAreBroughtWithinTheirSum) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    const CompressionSpec spec = Spec(round % 2 == 0 ? "snapkv" : "h2o");
    const int tokens = 1 + static_cast<int>(random() % 200);
    std::vector<LayerBudget> budgets;
    for (int layer = 0; layer < 5; ++layer) {
      budgets.push_back(Layer(spec, 1 + static_cast<int>(random() % 150), random() % 6 == 0));
    }
    const int64_t before = Sum(budgets, tokens), rows = static_cast<int64_t>(random() % 600);
    std::vector<int> had;
    for (int layer = 0; layer < 5 && round % 3 == 0; ++layer) had.push_back(static_cast<int>(random() % 150));
    const bool held = BindLayerBudgets(spec, tokens, rows, had, budgets);
    const int64_t after = Sum(budgets, tokens);
    EXPECT_LE(after, before);
    if (held) {
      EXPECT_LE(after, rows);
    }
    if (before > rows && held) {
      EXPECT_GT(after + 5, rows) << "nothing is given up for nothing";
    }
  }
}

// Rows that a layer gives up come back in none: with the next token it would be short of them.
TEST(BindBudgetTest, FromStepToStepALayerLosesNoRowByRounding) {
  const CompressionSpec spec = Spec("h2o");
  for (const bool told : {false, true}) {
    std::vector<int> before;
    int lost = 0;
    for (int tokens = 1000; tokens < 1200; ++tokens) {
      std::vector<LayerBudget> budgets = {Layer(spec, 0, /*dense=*/true)};
      for (const double share : {0.13, 0.21, 0.22, 0.31, 0.34}) {
        budgets.push_back(Layer(spec, static_cast<int>(share * tokens)));
      }
      const int64_t rows = tokens + tokens / 2;
      EXPECT_TRUE(BindLayerBudgets(spec, tokens, rows, told ? before : std::vector<int>(), budgets));
      EXPECT_LE(Sum(budgets, tokens), rows);
      for (size_t layer = 1; layer < before.size(); ++layer) lost += budgets[layer].rows.total() < before[layer];
      before.clear();
      for (const LayerBudget& budget : budgets) before.push_back(budget.rows.total());
    }
    EXPECT_EQ(lost > 0, !told) << lost;
  }
}

TEST(BindBudgetTest, HeadsThatRoundingMadeTooManyGiveFromTheLargest) {
  const RowBudget average = {.heavy = 10, .recent = 4};
  std::vector<RowBudget> heads = {{.heavy = 12, .recent = 4}, {.heavy = 9, .recent = 4}, {.heavy = 12, .recent = 4}};
  BindHeadBudgets(average, heads);
  EXPECT_EQ(heads[0].heavy, 10) << "the lower of equals first";
  EXPECT_EQ(heads[1].heavy, 9);
  EXPECT_EQ(heads[2].heavy, 11);
}

}  // namespace
}  // namespace tidepool
