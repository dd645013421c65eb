#include "policies/retain/token_scores.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::IsEmpty;

TEST(TokenScoresTest, AveragePoolingPadsWithZerosAndDividesByTheKernel) {
  EXPECT_THAT(PoolScores({3, 6, 9, 12}, 3, Pooling::kAvg), ElementsAre(3, 6, 9, 7));
  EXPECT_THAT(PoolScores({10, 20}, 5, Pooling::kAvg), ElementsAre(6, 6));
}

TEST(TokenScoresTest, MaxPoolingIgnoresPadding) {
  EXPECT_THAT(PoolScores({-3, -1, -5, -4, -9}, 3, Pooling::kMax), ElementsAre(-1, -1, -1, -4, -4));
  EXPECT_THAT(PoolScores({-2}, 7, Pooling::kMax), ElementsAre(-2));
}

TEST(TokenScoresTest, MaxPoolingTakesTheLargestOfAllNeighbours) {
  std::vector<float> scores;
  for (int i = 0; i < 100; ++i) scores.push_back(static_cast<float>(i * 37 % 101));
  for (const int kernel : {3, 7, 99, 255}) {
    const std::vector<float> pooled = PoolScores(scores, kernel, Pooling::kMax);
    for (int i = 0; i < 100; ++i) {
      const int first = std::max(0, i - kernel / 2), end = std::min(100, i + kernel / 2 + 1);
      ASSERT_EQ(pooled[i], *std::max_element(scores.begin() + first, scores.begin() + end)) << kernel << " " << i;
    }
  }
}

TEST(TokenScoresTest, WithoutPoolingScoresStay) {
  EXPECT_THAT(PoolScores({1, 5, 2}, 3, Pooling::kNone), ElementsAre(1, 5, 2));
  EXPECT_THAT(PoolScores({1, 5, 2}, 1, Pooling::kAvg), ElementsAre(1, 5, 2));
  EXPECT_THAT(PoolScores({}, 3, Pooling::kMax), IsEmpty());
}

TEST(TokenScoresTest, GroupsReduceByMeanMaxAndSum) {
  const std::vector<float> scores = {1, 2, 5, 0, 3, 10};  // 3 heads of 2
  EXPECT_THAT(ReduceGroup(scores, 3, GroupReduce::kSum), ElementsAre(9, 12));
  EXPECT_THAT(ReduceGroup(scores, 3, GroupReduce::kMean), ElementsAre(3, 4));
  EXPECT_THAT(ReduceGroup(scores, 3, GroupReduce::kMax), ElementsAre(5, 10));
  EXPECT_THAT(ReduceGroup(scores, 1, GroupReduce::kMean), ElementsAre(1, 2, 5, 0, 3, 10));
}

TEST(TokenScoresTest, WindowScoresOfSumsAreThoseOfTheProbabilities) {
  constexpr int kGroup = 3, kQueries = 4, kKeys = 30, kPast = 26;
  std::vector<float> probabilities, sums(kKeys);
  for (int i = 0; i < kGroup * kQueries * kKeys; ++i) {
    probabilities.push_back(static_cast<float>(i * 7919 % 1000) / 1000);
    sums[i % kKeys] += probabilities.back();
  }
  for (const GroupReduce reduce : {GroupReduce::kMean, GroupReduce::kSum}) {
    const std::vector<float> expected =
        WindowScores(probabilities, kGroup, kQueries, kKeys, kPast, reduce, 5, Pooling::kMax);
    const std::vector<float> got = WindowScoresOfSums(sums, kGroup, kQueries, kPast, reduce, 5, Pooling::kMax);
    EXPECT_THAT(got, testing::Pointwise(testing::FloatNear(1e-6), expected));
  }
}

TEST(TokenScoresTest, WindowScoresAreMeansOverTheWindowOfThePastOnly) {
  // 2 heads, 2 rows, 3 keys of which 2 are past.
  const std::vector<float> probabilities = {0.5f, 0.3f, 0.2f, 0.1f, 0.1f, 0.8f, 0.6f, 0.0f, 0.4f, 0.2f, 0.2f, 0.6f};
  EXPECT_THAT(WindowScores(probabilities, 2, 2, 3, 2, GroupReduce::kMean, 1, Pooling::kNone),
              ElementsAre(FloatEq(0.35f), FloatEq(0.15f)));
  EXPECT_THAT(WindowScores(probabilities, 2, 2, 3, 2, GroupReduce::kMax, 3, Pooling::kMax),
              ElementsAre(FloatEq(0.4f), FloatEq(0.4f)));
  EXPECT_THAT(WindowScores(probabilities, 2, 2, 3, 0, GroupReduce::kMean, 7, Pooling::kMax), IsEmpty());
}

TEST(TokenScoresTest, TopIndicesEqualAFullSortOnRandomScoresWithTies) {
  std::mt19937 random(17);
  for (int round = 0; round < 500; ++round) {
    const int size = static_cast<int>(random() % 60);
    std::vector<float> scores(size);
    for (float& score : scores) score = static_cast<float>(random() % 7);
    const int count = round % 4 == 0 ? std::max(size - 1, 0) : static_cast<int>(random() % 64);
    std::vector<int32_t> expected(size);
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(), [&](int a, int b) { return scores[a] > scores[b]; });
    expected.resize(std::min(size, count));
    std::sort(expected.begin(), expected.end());
    ASSERT_EQ(TopIndices(scores, count), expected);
  }
}

TEST(TokenScoresTest, NoneOfNothingAndNoneOfSome) {
  EXPECT_THAT(TopIndices({}, 3), IsEmpty());
  EXPECT_THAT(TopIndices({1, 2}, 0), IsEmpty());
  EXPECT_THAT(TopIndices({1, 2}, -1), IsEmpty());
}

TEST(TokenScoresTest, NotANumberRanksLast) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(TopIndices({nan, 1, nan, -5, nan}, 2), ElementsAre(1, 3));
  EXPECT_THAT(TopIndices(std::vector<float>(100, nan), 3), ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace tidepool
