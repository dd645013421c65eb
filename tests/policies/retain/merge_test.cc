#include "policies/retain/merge.h"

#include <cmath>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

// One head with rows of two channels.
struct Head {
  std::vector<float> kept_keys, kept_values, evicted_keys, evicted_values;
  MergeHead view(int head_dim) {
    return {kept_keys.data(), kept_values.data(), static_cast<int>(kept_keys.size()) / head_dim, evicted_keys.data(),
            evicted_values.data()};
  }
};

TEST(MergeTest, ASimilarRowIsFoldedIntoItsTargetWithItsSimilarityAsWeight) {
  // cosines: the first evicted row is parallel to kept row 1, the second at right angles to one, 45 degrees to both.
  Head head = {{1, 0, 0, 2}, {10, 20, 30, 40}, {0, 6, 1, 1}, {1, 2, 100, 200}};
  MergeState state;
  const MergeResult result = MergeEvicted({head.view(2)}, 2, 2, MergeOptions(), state);
  const float diagonal = std::sqrt(0.5f);
  EXPECT_THAT(result.similarity[0], ElementsAre(FloatNear(1, 1e-6f), FloatNear(diagonal, 1e-6f)));
  EXPECT_EQ(result.target[0][0], 1);
  EXPECT_THAT(result.merged[0], ElementsAre(1, 0));
  ASSERT_EQ(state.tau.size(), 1u);
  EXPECT_NEAR(state.tau[0], (1 + diagonal) / 2, 1e-6);
  // (K_c + u K_e) / 2, the untouched row as it was.
  EXPECT_THAT(head.kept_keys, ElementsAre(1, 0, FloatNear(0, 1e-6f), FloatNear(4, 1e-6f)));
  EXPECT_THAT(head.kept_values, ElementsAre(10, 20, FloatNear(15.5f, 1e-5f), FloatNear(21, 1e-5f)));
}

TEST(MergeTest, TheThresholdIsTheMeanAtFirstAndThenItsRunningAverage) {
  MergeState state;
  MergeOptions options;
  auto compress = [&](float angle) {
    Head head = {{1, 0}, {1, 1}, {std::cos(angle), std::sin(angle)}, {1, 1}};
    return MergeEvicted({head.view(2)}, 1, 2, options, state).merged[0][0] != 0;
  };
  EXPECT_TRUE(compress(1.0f));  // alone, equal to its own mean
  EXPECT_NEAR(state.tau[0], std::cos(1.0), 1e-6);
  EXPECT_FALSE(compress(1.2f));  // with one row: merged when at least the old threshold
  EXPECT_NEAR(state.tau[0], 0.5 * std::cos(1.0) + 0.5 * std::cos(1.2), 1e-6);
  EXPECT_TRUE(compress(0.3f));
  options.alpha = 0.25;
  options.beta = 0.75;
  const double before = state.tau[0];
  compress(0.9f);
  EXPECT_NEAR(state.tau[0], 0.25 * before + 0.75 * std::cos(0.9), 1e-6);
}

TEST(MergeTest, ASlotIsMergedInAllHeadsOrInNone) {
  // Slot 0: cosines 1 and 0.2 (mean 0.6); slot 1: 0 and 0.8 (mean 0.4).
  const float b = std::sqrt(1 - 0.04f), c = 0.6f;
  Head first = {{1, 0}, {0, 0}, {2, 0, 0, 3}, {0, 0, 0, 0}};
  Head second = {{1, 0}, {0, 0}, {0.2f, b, 0.8f, c}, {0, 0, 0, 0}};
  MergeState state;
  const MergeResult result = MergeEvicted({first.view(2), second.view(2)}, 2, 2, MergeOptions(), state);
  EXPECT_NEAR(state.tau[0], 0.5, 1e-6);
  EXPECT_THAT(result.merged[0], ElementsAre(1, 0));
  EXPECT_THAT(result.merged[1], ElementsAre(1, 0));
}

TEST(MergeTest, PaperModeDecidesEachHeadForItselfAndKeepsTheSumOfWeightsAtOne) {
  Head first = {{1, 0}, {3, 3}, {1, 0, 0, 1}, {3, 3, 9, 9}};
  Head second = {{1, 0}, {3, 3}, {0, 1, 1, 0}, {9, 9, 3, 3}};
  MergeOptions options;
  options.mode = MergeMode::kPaper;
  MergeState state;
  const MergeResult result = MergeEvicted({first.view(2), second.view(2)}, 2, 2, options, state);
  EXPECT_THAT(state.tau, ElementsAre(0.5, 0.5));
  EXPECT_THAT(result.merged[0], ElementsAre(1, 0));
  EXPECT_THAT(result.merged[1], ElementsAre(0, 1));
  EXPECT_THAT(first.kept_values, ElementsAre(FloatNear(3, 1e-6f), FloatNear(3, 1e-6f)));
}

TEST(MergeTest, SimilaritiesEqualADoublePrecisionSearchOverManyRows) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const int head_dim = 24, kept = 37, evicted = 50;
  Head head;
  for (std::vector<float>* rows : {&head.kept_keys, &head.kept_values}) {
    for (int i = 0; i < kept * head_dim; ++i) rows->push_back(normal(random));
  }
  for (std::vector<float>* rows : {&head.evicted_keys, &head.evicted_values}) {
    for (int i = 0; i < evicted * head_dim; ++i) rows->push_back(normal(random));
  }
  const Head before = head;
  MergeState state;
  const MergeResult result = MergeEvicted({head.view(head_dim)}, evicted, head_dim, MergeOptions(), state);
  for (int e = 0; e < evicted; ++e) {
    double best = -2;
    int target = -1;
    for (int i = 0; i < kept; ++i) {
      double dot = 0, a = 0, b = 0;
      for (int c = 0; c < head_dim; ++c) {
        const double x = before.evicted_keys[e * head_dim + c], y = before.kept_keys[i * head_dim + c];
        dot += x * y;
        a += x * x;
        b += y * y;
      }
      if (dot / std::sqrt(a * b) > best) {
        best = dot / std::sqrt(a * b);
        target = i;
      }
    }
    EXPECT_EQ(result.target[0][e], target);
    EXPECT_NEAR(result.similarity[0][e], best, 1e-5);
  }
}

TEST(MergeTest, ZeroRowsAreSimilarToNothing) {
  Head head = {{1, 0}, {1, 1}, {0, 0, 1, 0}, {5, 5, 1, 1}};
  MergeState state;
  const MergeResult result = MergeEvicted({head.view(2)}, 2, 2, MergeOptions(), state);
  EXPECT_EQ(result.similarity[0][0], 0.0f);
  EXPECT_THAT(result.merged[0], ElementsAre(0, 1));
}

}  // namespace
}  // namespace tidepool
