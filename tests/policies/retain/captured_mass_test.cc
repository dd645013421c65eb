#include "policies/retain/captured_mass.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "gtest/gtest.h"

namespace tidepool {
namespace {

using Scores = std::vector<std::vector<float>>;

Scores Random(int layers, int rows, int seed) {
  std::mt19937 random(seed);
  Scores scores(layers);
  for (int layer = 0; layer < layers; ++layer) {
    std::gamma_distribution<float> score(0.1f + 0.2f * static_cast<float>(layer % 5));
    for (int i = 0; i < rows; ++i) scores[layer].push_back(score(random) + 1e-6f);
  }
  return scores;
}

double Sum(const std::vector<float>& layer) { return std::accumulate(layer.begin(), layer.end(), 0.0); }

// What the best `rows` rows hold, by counting one after the other.
double Captured(std::vector<float> layer, int rows) {
  const double all = Sum(layer);
  std::sort(layer.begin(), layer.end(), std::greater<>());
  return std::accumulate(layer.begin(), layer.begin() + rows, 0.0) / all;
}

int Total(const std::vector<int>& rows) { return std::accumulate(rows.begin(), rows.end(), 0); }

TEST(CapturedMassTest, EachLayerHasTheFewestRowsThatHoldTheShare) {
  const Scores scores = Random(6, 50, 1);
  for (const double share : {0.1, 0.5, 0.9, 0.975}) {
    const std::vector<int> rows = RowsForMass(scores, share);
    for (size_t layer = 0; layer < scores.size(); ++layer) {
      EXPECT_GE(Captured(scores[layer], rows[layer]), share);
      EXPECT_LT(Captured(scores[layer], rows[layer] - 1), share);
    }
  }
}

TEST(CapturedMassTest, AShareOfNothingNeedsNoRowAndAShareOfAllLeavesOutRowsWithoutScore) {
  const Scores scores = {{3, 0, 1, 0}, {1, 1, 1, 1}};
  EXPECT_EQ(RowsForMass(scores, 0.0), (std::vector<int>{0, 0}));
  EXPECT_EQ(RowsForMass(scores, 1.0), (std::vector<int>{2, 4}));
}

TEST(CapturedMassTest, EqualMassEqualsBisectingTheShareWhereThatMeetsTheTotal) {
  int met = 0;
  for (int seed = 0; seed < 40; ++seed) {
    const Scores scores = Random(4 + seed % 5, 30, seed);
    const int total = 10 + 2 * seed;
    double low = 0, high = 1;
    std::vector<int> rows;
    for (int round = 0; round < 60; ++round) {
      const double middle = (low + high) / 2;
      rows = RowsForMass(scores, middle);
      (Total(rows) > total ? high : low) = middle;
    }
    rows = RowsForMass(scores, low);
    if (Total(rows) != total) continue;
    ++met;
    EXPECT_EQ(RowsOfEqualMass(scores, total, 0), rows) << seed;
  }
  EXPECT_GE(met, 30);  // two layers rarely take a row at the same share
}

TEST(CapturedMassTest, TheTotalIsMetExactlyWhateverTheScores) {
  for (int seed = 0; seed < 20; ++seed) {
    const Scores scores = Random(7, 20, 100 + seed);
    for (int total = 7; total <= 140; total += 11) EXPECT_EQ(Total(RowsOfEqualMass(scores, total, 1)), total);
  }
}

TEST(CapturedMassTest, LayersThatSpreadTheirAttentionHaveMoreRows) {
  const Scores scores = {{100, 1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1}};
  EXPECT_EQ(RowsOfEqualMass(scores, 8, 0), (std::vector<int>{1, 7}));
}

TEST(CapturedMassTest, EveryLayerHasTheLeastOrWhatItHas) {
  const Scores scores = {{100, 1, 1, 1}, {1, 1, 1, 1}, {5}};
  EXPECT_EQ(RowsOfEqualMass(scores, 7, 2), (std::vector<int>{2, 4, 1}));
  EXPECT_EQ(RowsOfEqualMass(scores, 0, 2), (std::vector<int>{2, 2, 1}));
  EXPECT_EQ(RowsOfEqualMass(scores, 1000, 2), (std::vector<int>{4, 4, 1}));
}

TEST(CapturedMassTest, OfEqualLayersTheLowerHasTheOddRow) {
  EXPECT_EQ(RowsOfEqualMass(Scores(3, {2, 2, 2, 2}), 7, 0), (std::vector<int>{3, 2, 2}));
}

TEST(CapturedMassTest, ScoresThatAreNoneCountAsZeroAndALayerOfZerosIsTakenToSpread) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(RowsForMass(Scores{{nan, 1, infinity, -4}, {0, 0, 0, 0}, {nan, nan}, {}}, 0.5),
            (std::vector<int>{1, 2, 1, 0}));
  EXPECT_EQ(RowsForMass(Scores{{infinity, 1, 1, 1}}, 0.9), std::vector<int>{3});
  EXPECT_EQ(RowsOfEqualMass(Scores{{nan, 1, -infinity, 0}, {0, nan, 0, 0}}, 5, 0), (std::vector<int>{1, 4}));
}

}  // namespace
}  // namespace tidepool
