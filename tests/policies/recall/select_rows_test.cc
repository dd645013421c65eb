#include "policies/recall/select_rows.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(SelectRowsToRecallTest, TheKthLargestCountsTies) {
  const std::vector<float> weight = {0.3f, 0.1f, 0.3f, 0.2f};
  EXPECT_EQ(KthLargest(weight, 1), 0.3f);
  EXPECT_EQ(KthLargest(weight, 2), 0.3f);
  EXPECT_EQ(KthLargest(weight, 3), 0.2f);
  EXPECT_EQ(KthLargest(weight, 4), 0.1f);
}

TEST(SelectRowsToRecallTest, WithASlotForEachThereIsNothingToBeat) {
  EXPECT_EQ(KthLargest({0.5f, 0.25f}, 3), 0.0f);
  EXPECT_EQ(KthLargest({}, 1), 0.0f);
  EXPECT_EQ(KthLargest({0.5f}, 0), 0.0f);
}

TEST(SelectRowsToRecallTest, SyncBringsTheBestThatAreMissingAndTiesGoToTheLowerPosition) {
  const std::vector<float> weight = {0.1f, 0.4f, 0.2f, 0.4f, 0.2f, 0.3f};
  const std::vector<uint8_t> resident = {1, 0, 0, 1, 1, 0};
  const std::vector<float> average = {0.5f, 0, 0, 0.1f, 0.2f, 0};
  const RecallChoice choice = ChooseBest({weight, resident, average}, 4);  // 1, 3, 5, 2
  EXPECT_THAT(choice.wanted, ElementsAre(1, 5, 2));
  EXPECT_THAT(choice.victims, ElementsAre(4, 0));  // lowest average first
}

TEST(SelectRowsToRecallTest, SyncWantsAllWhenEverythingFits) {
  const std::vector<float> weight = {0.1f, 0.4f, 0.2f};
  const std::vector<uint8_t> resident = {0, 1, 0};
  const RecallChoice choice = ChooseBest({weight, resident, std::vector<float>(3)}, 100);
  EXPECT_THAT(choice.wanted, ElementsAre(2, 0));
  EXPECT_THAT(choice.victims, IsEmpty());
}

TEST(SelectRowsToRecallTest, AsyncTakesTheBestAboveTheThresholdUpToItsLimit) {
  const std::vector<float> weight = {0.5f, 0.4f, 0.3f, 0.2f, 0.1f};
  const std::vector<uint8_t> resident = {0, 1, 0, 0, 1};
  const std::vector<float> average(5, 0.1f);
  EXPECT_THAT(ChooseAbove({weight, resident, average}, 0.25f, 4, 10).wanted, ElementsAre(0, 2));
  EXPECT_THAT(ChooseAbove({weight, resident, average}, 0.3f, 4, 10).wanted, ElementsAre(0));  // strictly above
  EXPECT_THAT(ChooseAbove({weight, resident, average}, 0.0f, 4, 2).wanted, ElementsAre(0, 2));
  EXPECT_THAT(ChooseAbove({weight, resident, average}, 0.0f, 2, 10).wanted, ElementsAre(0));  // no more than slots
  EXPECT_THAT(ChooseAbove({weight, resident, average}, 0.0f, 4, 0).wanted, IsEmpty());
  EXPECT_THAT(ChooseAbove({weight, resident, average}, 0.0f, 4, 10).victims, ElementsAre(4));
}

TEST(SelectRowsToRecallTest, ThereIsAlwaysASlotForWhatIsWantedAndVictimsAreNeverAmongTheBest) {
  std::mt19937 random(11);
  for (int round = 0; round < 2000; ++round) {
    const int count = 1 + static_cast<int>(random() % 30), slots = static_cast<int>(random() % 12);
    std::vector<float> weight(count), average(count);
    std::vector<uint8_t> resident(count, 0);
    int held = 0;
    for (int i = 0; i < count; ++i) {
      weight[i] = random() % 20 == 0 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(random() % 9) / 9;
      average[i] = static_cast<float>(random() % 9);
      if (held < slots && random() % 3 == 0) resident[i] = 1, ++held;
    }
    const RecallCandidates candidates{weight, resident, average};
    for (const RecallChoice& choice :
         {ChooseBest(candidates, slots), ChooseAbove(candidates, 0.3f, slots, slots / 2)}) {
      ASSERT_LE(choice.wanted.size(), static_cast<size_t>(slots - held) + choice.victims.size());
      for (int32_t i : choice.wanted) ASSERT_FALSE(resident[i]);
      for (int32_t i : choice.victims) ASSERT_TRUE(resident[i]);
    }
  }
}

std::vector<int32_t> Ahead(const std::vector<int32_t>& best, const std::vector<int32_t>& positions,
                           const std::vector<uint8_t>& resident, int follow, int most) {
  return RowsAhead(best, positions, resident, follow, most);
}

TEST(RowsAheadTest, EachOfTheBestIsFollowedByTheNextPositions) {
  EXPECT_EQ(Ahead({3, 0}, {0, 1, 2, 3, 4, 5, 6}, {0, 0, 0, 0, 0, 0, 0}, 2, 100),
            (std::vector<int32_t>{3, 4, 5, 0, 1, 2}));
}

TEST(RowsAheadTest, PositionsThatAreNoCandidatesLeaveGaps) {
  EXPECT_EQ(Ahead({1}, {0, 10, 12, 14, 15}, {0, 0, 0, 0, 0}, 4, 100), (std::vector<int32_t>{1, 2, 3}));
}

TEST(RowsAheadTest, ResidentsCountButAreNotFetched) {
  EXPECT_EQ(Ahead({0, 3}, {0, 1, 2, 3, 4}, {1, 0, 1, 0, 0}, 1, 3), (std::vector<int32_t>{1, 3}));
}

TEST(RowsAheadTest, ARowIsAskedForOnce) {
  EXPECT_EQ(Ahead({0, 1, 2}, {0, 1, 2, 3}, {0, 0, 0, 0}, 2, 100), (std::vector<int32_t>{0, 1, 2, 3}));
}

TEST(RowsAheadTest, NothingFollowsWhenNothingMay) {
  EXPECT_EQ(Ahead({2, 0}, {0, 1, 2}, {0, 0, 0}, 0, 100), (std::vector<int32_t>{2, 0}));
  EXPECT_TRUE(Ahead({2, 0}, {0, 1, 2}, {0, 0, 0}, 5, 0).empty());
  EXPECT_TRUE(Ahead({}, {}, {}, 5, 5).empty());
}

}  // namespace
}  // namespace tidepool
