#include "policies/retain/lazy_layers.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "policies/retain/preset_table.h"

namespace tidepool {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

CompressionSpec Lazy() { return FindPreset("lighttransfer")->make(); }

TEST(LazyLayersTest, TheRatioIsTheMeanAttentionOnBothEnds) {
  const std::vector<float> rows = {0.1f, 0.2f, 0.3f, 0.4f,  //
                                   0.5f, 0.2f, 0.2f, 0.1f};
  EXPECT_NEAR(LazyRatio(rows, 4, 1, 1), (0.1 + 0.4 + 0.5 + 0.1) / 2, 1e-7);
  EXPECT_NEAR(LazyRatio(rows, 4, 0, 2), (0.7 + 0.3) / 2, 1e-7);
  EXPECT_NEAR(LazyRatio(rows, 4, 2, 0), (0.3 + 0.7) / 2, 1e-7);
}

TEST(LazyLayersTest, EndsThatMeetCountEachKeyOnce) {
  const std::vector<float> row = {0.1f, 0.2f, 0.3f, 0.4f};
  for (const auto& [sinks, recent] : {std::pair(2, 2), std::pair(3, 3), std::pair(9, 0), std::pair(0, 9)}) {
    EXPECT_EQ(LazyRatio(row, 4, sinks, recent), 1.0) << "whatever the probabilities round to: such layers are equals";
  }
}

TEST(LazyLayersTest, KeysThatAQueryDoesNotSeeAddNothingToTheLogSumExp) {
  const float hidden = -std::numeric_limits<float>::infinity();
  const float lse = std::log(3.0f);  // three keys with logit 0
  EXPECT_NEAR(LazyRatioFromLogSumExp({0.0f, hidden, 0.0f, 0.0f}, {lse, lse}), (1.0 / 3 + 2.0 / 3) / 2, 1e-6);
}

TEST(LazyLayersTest, TheQueueCutsTheLaziestOfThoseStillWhole) {
  LazyLayerQueue queue(2);
  EXPECT_EQ(queue.Push(0, 0.3), std::nullopt);
  EXPECT_EQ(queue.Push(1, 0.9), std::nullopt);
  EXPECT_EQ(queue.Push(2, 0.1), 1);
  EXPECT_EQ(queue.Push(3, 0.5), 3);
  EXPECT_EQ(queue.Push(4, 0.2), 0);
  EXPECT_EQ(queue.whole(), 2);
}

TEST(LazyLayersTest, OfEqualLayersTheLowerIsCutFirst) {
  LazyLayerQueue queue(2);
  std::vector<int> cut;
  for (int layer = 0; layer < 5; ++layer) {
    if (const std::optional<int> popped = queue.Push(layer, 0.5); popped.has_value()) cut.push_back(*popped);
  }
  EXPECT_EQ(cut, (std::vector<int>{0, 1, 2}));
}

TEST(LazyLayersTest, AQueueOfNoneCutsEveryLayerAtOnce) {
  LazyLayerQueue queue(0);
  EXPECT_EQ(queue.Push(7, 0.0), 7);
  EXPECT_EQ(queue.whole(), 0);
}

TEST(LazyLayersTest, RatiosThatAreNoNumbersAreNeverLazierThanOthers) {
  LazyLayerQueue queue(1);
  EXPECT_EQ(queue.Push(0, kNan), std::nullopt);
  EXPECT_EQ(queue.Push(1, 0.0), 1);
  EXPECT_EQ(queue.Push(2, kNan), 0);  // of equals the lower
  CompressionSpec spec = Lazy();
  spec.lazy_threshold = 0.5;
  EXPECT_TRUE(LazyLayers(spec, {kNan, 0.1}).empty());
}

TEST(LazyLayersTest, TheShareSaysHowManyAreCut) {
  const std::vector<double> ratios = {0.5, 0.1, 0.9, 0.7, 0.3};
  CompressionSpec spec = Lazy();
  EXPECT_EQ(LazyLayers(spec, ratios), (std::vector<int>{0, 2, 3}));
  spec.lazy_share = 0;
  EXPECT_TRUE(LazyLayers(spec, ratios).empty());
  spec.lazy_share = 0.4;
  EXPECT_EQ(LazyLayers(spec, ratios), (std::vector<int>{2, 3}));
  spec.lazy_share = 0.9;
  EXPECT_EQ(FullLayers(spec, 10), 1);  // 10 * (1 - 0.9) is not quite 1 in binary
  spec.lazy_share = 1;
  EXPECT_EQ(LazyLayers(spec, ratios), (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST(LazyLayersTest, AThresholdCutsWhatIsAboveIt) {
  const CompressionSpec spec = FindPreset("simlayerkv")->make();
  EXPECT_EQ(spec.lazy_threshold, 0.9);
  EXPECT_EQ(LazyLayers(spec, {0.95, 0.9, 0.1, 0.901}), (std::vector<int>{0, 3}));
}

TEST(LazyLayersTest, AListDecidesWhateverTheRatios) {
  CompressionSpec spec = Lazy();
  spec.lazy_layers = {3, 1, 9};  // 9 is no layer of this model
  EXPECT_EQ(LazyLayers(spec, {0.9, 0.0, 0.9, kNan}), (std::vector<int>{1, 3}));
}

TEST(LazyLayersTest, DenseLayersAreNeverCutAndCountAsWhole) {
  CompressionSpec spec = Lazy();
  spec.dense_layers = {2, 2, 40};
  EXPECT_EQ(LazyLayers(spec, {0.5, 0.1, 0.9, 0.7}), (std::vector<int>{0, 3}));
  spec.dense_layers = {0, 1, 2};
  EXPECT_EQ(LazyLayers(spec, {0.5, 0.1, 0.9, 0.7}), (std::vector<int>{3}));
  spec.lazy_threshold = 0.05;
  EXPECT_EQ(LazyLayers(spec, {0.5, 0.1, 0.9, 0.7}), (std::vector<int>{3}));
}

}  // namespace
}  // namespace tidepool
