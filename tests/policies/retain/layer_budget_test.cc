#include "policies/retain/layer_budget.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "gtest/gtest.h"
#include "policies/retain/preset_table.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

CompressionSpec Spec(std::string_view name) { return PresetSpec(name).value(); }

LayerBudgetInput Input(int layers, int tokens, int kept_rows, absl::Span<const double> concentration = {}) {
  LayerBudgetInput input;
  input.layers = layers;
  input.tokens = tokens;
  input.kept_rows = kept_rows;
  input.layer_weights = concentration;
  return input;
}

RowBudget Rows(int sinks, int heavy, int recent) {
  RowBudget budget;
  budget.sinks = sinks;
  budget.heavy = heavy;
  budget.recent = recent;
  return budget;
}

TEST(LayerBudgetTest, UniformPresetsSplitTheSameRowsInEveryLayer) {
  struct {
    const char* preset;
    RowBudget rows;
  } const cases[] = {
      {"streaming", Rows(4, 4, 96)},
      {"snapkv", Rows(0, 68, 32)},
      {"h2o", Rows(0, 50, 50)},
  };
  for (const auto& c : cases) {
    const std::vector<LayerBudget> budgets = LayerBudgets(Spec(c.preset), Input(5, 1000, 100));
    ASSERT_EQ(budgets.size(), 5u);
    for (const LayerBudget& budget : budgets) {
      EXPECT_FALSE(budget.dense);
      EXPECT_EQ(budget.rows, c.rows) << c.preset;
    }
  }
}

TEST(LayerBudgetTest, FullIsDenseEverywhere) {
  for (const LayerBudget& budget : LayerBudgets(CompressionSpec(), Input(3, 100, 100))) EXPECT_TRUE(budget.dense);
}

TEST(LayerBudgetTest, TheRecentShareMovesRowsBetweenHeavyAndRecent) {
  CompressionSpec spec = Spec("h2o");
  spec.recent_share = 0.25;
  EXPECT_EQ(LayerBudgets(spec, Input(1, 1000, 100))[0].rows, Rows(0, 75, 25));
  spec.recent_share = 0.001;  // at least one recent row, whatever the share
  EXPECT_EQ(LayerBudgets(spec, Input(1, 1000, 100))[0].rows, Rows(0, 99, 1));
}

TEST(LayerBudgetTest, TotalsAreWhatWasGivenDownToOneRow) {
  for (const char* preset : {"streaming", "snapkv", "h2o"}) {
    for (int kept = 1; kept < 80; ++kept) {
      const RowBudget rows = LayerBudgets(Spec(preset), Input(1, 1000, kept))[0].rows;
      EXPECT_EQ(rows.total(), kept) << preset;
      EXPECT_GE(rows.recent, 1) << preset;
    }
  }
}

TEST(LayerBudgetTest, DenseLayersAreTheGivenOnesAndForD2oItsOwn) {
  CompressionSpec spec = Spec("h2o");
  spec.dense_layers = {2};
  const std::vector<LayerBudget> budgets = LayerBudgets(spec, Input(4, 100, 20));
  for (int layer = 0; layer < 4; ++layer) EXPECT_EQ(budgets[layer].dense, layer == 2);

  CompressionSpec d2o = Spec("d2o");
  d2o.dense_layers = {3};
  std::vector<int> dense;
  for (int layer = 0; layer < 6; ++layer) {
    if (IsDenseLayer(d2o, layer, 6)) dense.push_back(layer);
  }
  EXPECT_EQ(dense, (std::vector<int>{0, 1, 3, 5}));
  d2o.dense_layers_override = true;
  for (int layer = 0; layer < 6; ++layer) EXPECT_EQ(IsDenseLayer(d2o, layer, 6), layer == 3);
}

TEST(LayerBudgetTest, D2oGivesMoreRowsToLayersOfLowConcentration) {
  const std::vector<double> concentration = {0.3, 0.1, 0.9, 0.3};
  const std::vector<LayerBudget> budgets = LayerBudgets(Spec("d2o"), Input(4, 1001, 200, concentration));
  double sum = 0;
  for (double f : concentration) sum += std::exp(-f);
  for (int layer = 0; layer < 4; ++layer) {
    // int((N) * ratio * hh_ratio / rho) of the official code, once for each half.
    const int half = static_cast<int>(1001 * (std::exp(-concentration[layer]) / sum * 4 * (200.0 / 1001)) * 0.5);
    EXPECT_EQ(budgets[layer].rows, Rows(4, half, half));
  }
  EXPECT_GT(budgets[1].rows.total(), budgets[0].rows.total());
  EXPECT_GT(budgets[0].rows.total(), budgets[2].rows.total());
}

TEST(LayerBudgetTest, D2oCutsProductsThatAreWholeNumbersToThemselves) {
  const std::vector<double> equal(3, 0.5);
  for (int tokens : {10, 70, 90, 1000, 4000}) {
    EXPECT_EQ(LayerBudgets(Spec("d2o"), Input(3, tokens, tokens / 5, equal))[1].rows,
              Rows(4, tokens / 10, tokens / 10));
  }
}

TEST(LayerBudgetTest, D2oKeepsAllOfAPromptThatFits) {
  const std::vector<double> concentration = {0.0, 0.9, 0.2};
  for (int kept : {100, 101, 500}) {
    for (const LayerBudget& budget : LayerBudgets(Spec("d2o"), Input(3, 100, kept, concentration))) {
      EXPECT_EQ(budget.rows.total(), kept);
      EXPECT_EQ(budget.rows.sinks, 4);
    }
  }
}

TEST(LayerBudgetTest, RatiosAreClampedToOneHundredthAndOne) {
  const std::vector<double> ratios = VarianceRatios({0.0, 20.0, 20.0}, 0.9);
  EXPECT_EQ(ratios[0], 1.0);
  EXPECT_EQ(ratios[1], 0.01);
}

TEST(LayerBudgetTest, EqualHeadsHaveNoConcentration) {
  const std::vector<float> sums = {4, 1, 1, 2};
  const std::vector<absl::Span<const float>> heads(3, sums);
  EXPECT_EQ(VarianceConcentration(heads), 0.0);
}

TEST(LayerBudgetTest, VariancesAreUnbiasedAndASmallTermKeepsTinySpreadsSmall) {
  const std::vector<float> flat = {1, 1}, tilted = {0.0f, 0.002f};  // variances 0 and 2e-6
  EXPECT_NEAR(VarianceConcentration({flat, tilted}), 0.5 * 2e-6 / (2e-6 + 1e-6), 1e-6);
}

TEST(LayerBudgetTest, TovaProtectsNothingAndAhaKvItsLastRows) {
  EXPECT_EQ(LayerBudgets(FindPreset("tova")->make(), Input(2, 1000, 100))[1].rows, Rows(0, 100, 0));
  EXPECT_EQ(LayerBudgets(FindPreset("ahakv")->make(), Input(2, 1000, 100))[1].rows, Rows(0, 68, 32));
  EXPECT_EQ(LayerBudgets(FindPreset("ahakv")->make(), Input(2, 1000, 20))[1].rows, Rows(0, 0, 20));
}

TEST(LayerBudgetTest, PyramidLayersAreEqualWhenThePromptFitsOrTheBudgetIsTheWindow) {
  for (const char* preset : {"pyramidkv", "ada-pyramidkv"}) {
    CompressionSpec spec = FindPreset(preset)->make();
    spec.window_tokens = 8;
    for (const LayerBudget& budget : LayerBudgets(spec, Input(4, 100, 100))) EXPECT_EQ(budget.rows, Rows(0, 92, 8));
    for (int kept : {1, 7, 8}) {
      for (const LayerBudget& budget : LayerBudgets(spec, Input(4, 100, kept))) {
        EXPECT_EQ(budget.rows, Rows(0, 0, kept)) << preset;
      }
    }
    for (const LayerBudget& budget : LayerBudgets(spec, Input(4, 100, 9))) {
      EXPECT_EQ(budget.rows.recent, 8);
      EXPECT_GE(budget.rows.heavy, 0);
    }
  }
}

TEST(LayerBudgetTest, PyramidSharesOutWhateverTheScoreDoesNotProtect) {
  CompressionSpec spec = FindPreset("pyramidkv")->make();
  spec.score = "position";
  for (const LayerBudget& budget : LayerBudgets(spec, Input(4, 1000, 40))) {
    EXPECT_EQ(budget.rows.heavy, std::min(4, budget.rows.total() - 1));  // the sinks, in a layer of any size
  }
  EXPECT_EQ(LayerBudgets(spec, Input(4, 1000, 40))[0].rows.total(), 78);
  EXPECT_EQ(LayerBudgets(spec, Input(4, 1000, 40))[3].rows.total(), 3);
}

TEST(LayerBudgetTest, PyramidLeavesTheLastRowsOfAhaKvToEveryLayer) {
  CompressionSpec spec = FindPreset("pyramidkv")->make();
  spec.score = "aha";
  spec.aha_recent = 8;
  const std::vector<LayerBudget> budgets = LayerBudgets(spec, Input(4, 68, 40));
  for (const LayerBudget& budget : budgets) EXPECT_EQ(budget.rows.recent, 8);
  EXPECT_EQ(budgets[0].rows.heavy, 60);
  EXPECT_EQ(budgets[3].rows.heavy, 6);
}

TEST(LayerBudgetTest, LazyLayersKeepTheirEndsAndDenseLayersStayDense) {
  CompressionSpec spec = FindPreset("lighttransfer")->make();
  spec.lazy_sinks = 2;
  spec.lazy_recent = 5;
  spec.dense_layers = {1};
  const std::vector<int> lazy = {1, 2};  // 1: the queue is not to choose it, and if it did it would not count
  LayerBudgetInput input = Input(4, 1000, 1000);
  input.lazy_layers = lazy;
  const std::vector<LayerBudget> budgets = LayerBudgets(spec, input);
  for (int layer = 0; layer < 4; ++layer) EXPECT_EQ(budgets[layer].dense, layer != 2);
  EXPECT_EQ(budgets[2].rows, Rows(2, 2, 5));
  EXPECT_TRUE(budgets[2].each_step) << "its window slides";
}

TEST(LayerBudgetTest, LazyLayersAndTheOthersShareABudgetThatIsTooSmallForTheMethod) {
  CompressionSpec spec = FindPreset("lighttransfer")->make();
  spec.window_tokens = 8;
  const std::vector<int> lazy = {1, 3, 4};
  LayerBudgetInput input = Input(5, 10'000, 200);
  input.lazy_layers = lazy;
  const std::vector<LayerBudget> budgets = LayerBudgets(spec, input);
  int total = 0;
  for (int layer : {0, 2}) {
    EXPECT_EQ(budgets[layer].rows, Rows(0, 350 - 8, 8));
    EXPECT_EQ(budgets[layer].score->name(), "window");
    EXPECT_FALSE(budgets[layer].each_step);
    total += budgets[layer].rows.total();
  }
  for (int layer : lazy) {
    EXPECT_EQ(budgets[layer].rows, Rows(4, 4, 96));
    EXPECT_EQ(budgets[layer].score->name(), "position");
    total += budgets[layer].rows.total();
  }
  EXPECT_EQ(total, 5 * 200);
}

TEST(LayerBudgetTest, WhenAllLayersAreLazyEachHasTheAverageAtMost) {
  CompressionSpec spec = FindPreset("lighttransfer")->make();
  const std::vector<int> lazy = {0, 1};
  LayerBudgetInput input = Input(2, 10'000, 200);
  input.lazy_layers = lazy;
  for (const LayerBudget& budget : LayerBudgets(spec, input)) EXPECT_EQ(budget.rows, Rows(4, 4, 196));
  input.kept_rows = 5000;
  for (const LayerBudget& budget : LayerBudgets(spec, input)) EXPECT_EQ(budget.rows, Rows(4, 4, 1020));
}

}  // namespace
}  // namespace tidepool
