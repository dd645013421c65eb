#include "policies/retain/best_rows.h"

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using testing::ElementsAre;
using Layers = std::vector<std::vector<float>>;

TEST(BestRowsTest, LayersHaveWhatTheyHaveAmongTheBest) {
  const Layers scores = {{0.9f, 0.1f, 0.8f}, {0.2f, 0.7f}, {0.3f, 0.05f, 0.02f}};
  EXPECT_THAT(RowsOfBest(scores, 3, 0), ElementsAre(2, 1, 0));
  EXPECT_THAT(RowsOfBest(scores, 5, 0), ElementsAre(2, 2, 1));
  EXPECT_THAT(RowsOfBest(scores, 8, 0), ElementsAre(3, 2, 3));
  EXPECT_THAT(RowsOfBest(scores, 100, 0), ElementsAre(3, 2, 3));
  EXPECT_THAT(RowsOfBest(scores, 0, 0), ElementsAre(0, 0, 0));
}

TEST(BestRowsTest, EachLayerHasItsLeast) {
  const Layers scores = {{0.9f, 0.1f, 0.8f}, {0.2f, 0.7f}, {0.3f, 0.05f, 0.02f}, {}};
  EXPECT_THAT(RowsOfBest(scores, 4, 1), ElementsAre(2, 1, 1, 0));
  EXPECT_THAT(RowsOfBest(scores, 1, 2), ElementsAre(2, 2, 2, 0));  // also beyond the total
}

TEST(BestRowsTest, EqualsGoToTheLowerLayerAndNoNumberComesLast) {
  const float none = -std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(RowsOfBest(Layers{{1, 1}, {1, 1}}, 3, 0), ElementsAre(2, 1));
  EXPECT_THAT(RowsOfBest(Layers{{none, nan}, {0.1f, 0.1f}}, 3, 0), ElementsAre(1, 2));
}

TEST(BestRowsTest, EqualsSortingEverything) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    Layers scores(1 + random() % 4);
    std::vector<std::pair<float, int>> all;
    for (size_t layer = 0; layer < scores.size(); ++layer) {
      for (int n = static_cast<int>(random() % 12); n > 0; --n) {
        scores[layer].push_back(static_cast<float>(random()) * 1e-9f);
        all.emplace_back(-scores[layer].back(), static_cast<int>(layer));
      }
    }
    std::sort(all.begin(), all.end());
    const size_t total = random() % 30;
    std::vector<int> expected(scores.size(), 0);
    for (size_t i = 0; i < std::min(total, all.size()); ++i) ++expected[all[i].second];
    EXPECT_EQ(RowsOfBest(scores, static_cast<int64_t>(total), 0), expected) << round;
  }
}

}  // namespace
}  // namespace tidepool
