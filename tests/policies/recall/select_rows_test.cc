#include "policies/recall/select_rows.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr RecallState kOut = RecallState::kOut, kFree = RecallState::kCandidate, kSlot = RecallState::kSlot;
const float kNan = std::numeric_limits<float>::quiet_NaN();

struct Head {
  std::vector<float> weight;
  std::vector<RecallState> state;
  std::vector<SlotRow> held;

  RecallRows rows() const { return {weight, state}; }
};

Head AllFree(std::vector<float> weight) {
  const size_t count = weight.size();
  return {std::move(weight), std::vector<RecallState>(count, kFree), {}};
}

TopRows FindTopRows(const RecallRows& rows, int k, const WeighedRows& likely = {}) {
  TopRows top{.kth = 1, .positions = {7}, .weights = {7.0f}};  // of another choice
  FindTopRows(rows, k, likely, top);
  return top;
}

std::vector<int32_t> Ascending(std::vector<int32_t> positions) {
  std::sort(positions.begin(), positions.end());
  return positions;
}

std::vector<int32_t> AllOf(const TopRows& top) { return Ascending(RowsAbove(top, 0)); }

std::vector<int32_t> RunnersUp(const TopRows& top, float near) {
  std::vector<int32_t> runners_up;
  RunnersUp(top, near, [&](int32_t position) {
    runners_up.push_back(position);
    return true;
  });
  return runners_up;
}

std::vector<int32_t> RowsAhead(absl::Span<const int32_t> best, absl::Span<const RecallState> state, int follow,
                               int most) {
  std::vector<int32_t> ahead;
  RowsAhead(best, state, follow, most, [&](int32_t position) {
    ahead.push_back(position);
    return true;
  });
  return ahead;
}

TEST(FindTopRowsTest, TheKthLargestCountsTies) {
  const Head head = AllFree({0.3f, 0.1f, 0.3f, 0.2f});
  EXPECT_EQ(FindTopRows(head.rows(), 1).kth, 0.3f);
  EXPECT_EQ(FindTopRows(head.rows(), 2).kth, 0.3f);
  EXPECT_EQ(FindTopRows(head.rows(), 3).kth, 0.2f);
  EXPECT_EQ(FindTopRows(head.rows(), 4).kth, 0.1f);
  EXPECT_THAT(AllOf(FindTopRows(head.rows(), 1)), ElementsAre(0, 2));
  EXPECT_THAT(AllOf(FindTopRows(head.rows(), 3)), ElementsAre(0, 2, 3));
}

TEST(FindTopRowsTest, WithASlotForEachThereIsNothingToBeat) {
  const Head two = AllFree({0.5f, 0.25f});
  EXPECT_EQ(FindTopRows(two.rows(), 3).kth, 0.0f);
  EXPECT_THAT(AllOf(FindTopRows(two.rows(), 3)), ElementsAre(0, 1));
  EXPECT_EQ(FindTopRows(AllFree({}).rows(), 1).kth, 0.0f);
  EXPECT_EQ(FindTopRows(AllFree({0.5f}).rows(), 0).kth, 0.0f);
}

TEST(FindTopRowsTest, RunnersUpAreThoseNearTheKthAndAGuessChangesNothingElse) {
  std::mt19937 random(4);
  for (int round = 0; round < 500; ++round) {
    const int count = 1 + static_cast<int>(random() % 40), k = static_cast<int>(random() % 20);
    Head head = AllFree(std::vector<float>(count));
    for (int i = 0; i < count; ++i) {
      head.weight[i] = random() % 15 == 0 ? kNan : static_cast<float>(random() % 12) / 12;
      if (random() % 4 == 0) head.state[i] = kOut, head.weight[i] = 0;
    }
    const TopRows plain = FindTopRows(head.rows(), k);
    const float near = static_cast<float>(random() % 12) / 12;
    std::vector<int32_t> likely;
    std::vector<float> weights;
    for (int i = 0; i < count; ++i) {
      if (!(near > 0 && head.weight[i] > near)) continue;
      likely.push_back(i);
      weights.push_back(head.weight[i]);
    }
    const TopRows guessed = FindTopRows(head.rows(), k, {likely, weights});
    ASSERT_EQ(plain.kth, guessed.kth);
    ASSERT_EQ(AllOf(plain), AllOf(guessed));
    ASSERT_EQ(RunnersUp(plain, near), RunnersUp(guessed, near));
    for (int32_t i : AllOf(plain)) ASSERT_TRUE(plain.Has(head.weight[i]));
    std::vector<int32_t> expected;
    for (int i = 0; i < count; ++i) {
      if (k > 0 && head.state[i] != kOut && head.weight[i] > near && head.weight[i] < plain.kth) {
        expected.push_back(i);
      }
    }
    ASSERT_EQ(RunnersUp(guessed, near), expected);
  }
}

TEST(ChooseBestTest, BringsTheBestThatAreMissingAndTiesGoToTheLowerPosition) {
  const Head head{{0.1f, 0.4f, 0.2f, 0.4f, 0.2f, 0.3f, 0.9f},
                  {kSlot, kFree, kFree, kSlot, kSlot, kFree, kOut},
                  {{0, 0.5f}, {3, 0.1f}, {4, 0.2f}}};
  const std::vector<int32_t> best = BestRows(head.rows(), 4);
  EXPECT_THAT(best, ElementsAre(1, 3, 5, 2));
  const RecallChoice choice = ChooseBest(head.rows(), head.held, best);
  EXPECT_THAT(choice.wanted, ElementsAre(1, 5, 2));
  EXPECT_THAT(choice.victims, ElementsAre(4, 0)) << "lowest average first";
}

TEST(ChooseBestTest, WantsAllWhenEverythingFits) {
  const Head head{{0.1f, 0.4f, 0.2f}, {kFree, kSlot, kFree}, {{1, 0.0f}}};
  const RecallChoice choice = ChooseBest(head.rows(), head.held, BestRows(head.rows(), 100));
  EXPECT_THAT(choice.wanted, ElementsAre(2, 0));
  EXPECT_THAT(choice.victims, IsEmpty());
}

RecallChoice Above(const Head& head, float threshold, int slots, int most) {
  return ChooseAbove(head.rows(), head.held, FindTopRows(head.rows(), slots), threshold, slots, most);
}

TEST(ChooseAboveTest, TakesTheBestAboveTheThresholdUpToItsLimit) {
  const Head head{{0.5f, 0.4f, 0.3f, 0.2f, 0.1f}, {kFree, kSlot, kFree, kFree, kSlot}, {{1, 0.1f}, {4, 0.1f}}};
  EXPECT_THAT(Above(head, 0.25f, 4, 10).wanted, ElementsAre(0, 2));
  EXPECT_THAT(Above(head, 0.3f, 4, 10).wanted, ElementsAre(0)) << "strictly above";
  EXPECT_THAT(Above(head, 0.0f, 4, 2).wanted, ElementsAre(0, 2));
  EXPECT_THAT(Above(head, 0.0f, 2, 10).wanted, ElementsAre(0)) << "no more than slots";
  EXPECT_THAT(Above(head, 0.0f, 4, 0).wanted, IsEmpty());
  EXPECT_THAT(Above(head, 0.0f, 4, 10).victims, ElementsAre(4));
  EXPECT_THAT(Above(head, 0.5f, 4, 10).victims, IsEmpty()) << "nobody has to go";
}

TEST(ChooseAboveTest, ARowWithoutAnyWeightGivesItsSlotUp) {
  const Head head{{0, 1, 0, 0}, {kSlot, kFree, kFree, kSlot}, {{0, 0.2f}, {3, 0.1f}}};
  const RecallChoice choice = Above(head, 0.1f, 2, 1);
  EXPECT_THAT(choice.wanted, ElementsAre(1));
  EXPECT_THAT(choice.victims, ElementsAre(3));
}

TEST(RowsAboveTest, AreOfTheTopOnly) {
  const Head head = AllFree({0.1f, 0.4f, 0.3f, 0.2f});
  const TopRows top = FindTopRows(head.rows(), 3);
  EXPECT_THAT(RowsAbove(top, 0.0f), ElementsAre(1, 2, 3));
  EXPECT_THAT(RowsAbove(top, 0.3f), ElementsAre(1));
}

TEST(SelectRowsToRecallTest, ThereIsAlwaysASlotForWhatIsWantedAndVictimsAreNeverAmongTheBest) {
  std::mt19937 random(11);
  for (int round = 0; round < 2000; ++round) {
    const int count = 1 + static_cast<int>(random() % 30), slots = static_cast<int>(random() % 12);
    Head head = AllFree(std::vector<float>(count));
    for (int i = 0; i < count; ++i) {
      head.weight[i] = random() % 20 == 0 ? kNan : static_cast<float>(random() % 9) / 9;
      if (random() % 5 == 0) {
        head.state[i] = kOut;
        head.weight[i] = 0;
      } else if (static_cast<int>(head.held.size()) < slots && random() % 3 == 0) {
        head.state[i] = kSlot;
        head.held.push_back({i, static_cast<float>(random() % 9)});
      }
    }
    const std::vector<int32_t> best = BestRows(head.rows(), slots);
    for (const RecallChoice& choice : {ChooseBest(head.rows(), head.held, best), Above(head, 0.3f, slots, slots / 2)}) {
      ASSERT_LE(choice.wanted.size(), slots - head.held.size() + choice.victims.size());
      ASSERT_LE(choice.victims.size(), choice.wanted.size());
      for (int32_t i : choice.wanted) ASSERT_EQ(head.state[i], kFree);
      for (int32_t i : choice.victims) ASSERT_EQ(head.state[i], kSlot);
    }
  }
}

TEST(RowsAheadTest, EachOfTheBestIsFollowedByTheNextPositions) {
  EXPECT_THAT(RowsAhead({3, 0}, std::vector<RecallState>(7, kFree), 2, 100), ElementsAre(3, 4, 5, 0, 1, 2));
}

TEST(RowsAheadTest, PositionsThatAreNoCandidatesLeaveGaps) {
  EXPECT_THAT(RowsAhead({1}, {kFree, kFree, kOut, kFree, kOut, kFree, kFree}, 4, 100), ElementsAre(1, 3, 5));
}

TEST(RowsAheadTest, RowsWithSlotsCountButAreNotFetched) {
  EXPECT_THAT(RowsAhead({0, 3}, {kSlot, kFree, kSlot, kFree, kFree}, 1, 3), ElementsAre(1, 3));
}

TEST(RowsAheadTest, ARowIsAskedForOnce) {
  EXPECT_THAT(RowsAhead({0, 1, 2}, std::vector<RecallState>(4, kFree), 2, 100), ElementsAre(0, 1, 2, 3));
}

TEST(RowsAheadTest, StopsWhenNoMoreAreTaken) {
  std::vector<int32_t> ahead;
  RowsAhead({2, 0}, std::vector<RecallState>(100, kFree), 8, 100, [&](int32_t position) {
    ahead.push_back(position);
    return ahead.size() < 2;
  });
  EXPECT_THAT(ahead, ElementsAre(2, 3));
}

// More than are sorted by comparisons, and some that are few among many.
TEST(BestRowsTest, AreThoseOfASortOfEverything) {
  std::mt19937 random(12);
  for (const int size : {1, 47, 48, 49, 200, 1000}) {
    Head head = AllFree(std::vector<float>(size));
    for (float& x : head.weight) x = random() % 30 == 0 ? kNan : static_cast<float>(random() % 40) / 40 - 0.25f;
    std::vector<int32_t> sorted(size);
    for (int i = 0; i < size; ++i) sorted[i] = i;
    std::sort(sorted.begin(), sorted.end(), BestFirst(head.weight));
    for (const int count : {0, 1, size / 10, size / 3, size, size + 5}) {
      const auto end = sorted.begin() + std::min(count, size);
      ASSERT_EQ(BestRows(head.rows(), count), std::vector<int32_t>(sorted.begin(), end));
      std::vector<int32_t> best;
      const float least = BestPlaces(head.weight, count, best);
      ASSERT_EQ(best, Ascending(std::vector<int32_t>(sorted.begin(), end)));
      const float expected = count == 0 ? 0 : head.weight[*std::prev(end)];
      ASSERT_EQ(least, std::isnan(expected) ? least : expected);
    }
  }
}

TEST(RowsAheadTest, NothingFollowsWhenNothingMay) {
  const std::vector<RecallState> state(3, kFree);
  EXPECT_THAT(RowsAhead({2, 0}, state, 0, 100), ElementsAre(2, 0));
  EXPECT_THAT(RowsAhead({2, 0}, state, 5, 0), IsEmpty());
  EXPECT_THAT(RowsAhead({}, {}, 5, 5), IsEmpty());
}

}  // namespace
}  // namespace tidepool
