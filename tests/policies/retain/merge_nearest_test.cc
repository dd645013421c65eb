#include "policies/retain/merge_nearest.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(MergeNearestTest, TheNearestKeptPositionIsTheTargetOfTwoAsNearTheLower) {
  EXPECT_THAT(NearestKept({2, 6, 10}, {0, 1, 3, 4, 5, 7, 8, 9, 30}), ElementsAre(0, 0, 0, 0, 1, 1, 1, 2, 2));
  EXPECT_THAT(NearestKept({5}, {1, 4, 6, 100}), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(NearestKept({5, 6, 7, 100}, {90}), ElementsAre(3));
  EXPECT_THAT(NearestKept({5}, {}), IsEmpty());
}

TEST(MergeNearestTest, ATargetBecomesTheMeanOfItselfAndItsSourcesAndOthersStay) {
  std::vector<float> kept = {1,  2,  //
                             10, 20, 0.1f, 0.3f};
  AverageInto({0, 0, 1}, {4, 5, 7, 8, 30, 40}, 2, absl::MakeSpan(kept));
  EXPECT_THAT(kept, ElementsAre(4, 5, 20, 30, 0.1f, 0.3f));
}

}  // namespace
}  // namespace tidepool
