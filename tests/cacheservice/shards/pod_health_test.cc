#include "cacheservice/shards/pod_health.h"

#include <gtest/gtest.h>

namespace tidepool {
namespace {

using State = PodHealth::State;
constexpr absl::Duration kSlowStart = absl::Seconds(10);
const absl::Time kBegin = absl::FromUnixSeconds(1'000'000);

TEST(PodHealthTest, APodThatIsThereAtTheBeginningGetsItsWholeShareAtOnce) {
  PodHealth health(3, kSlowStart, /*joined_later=*/false);
  EXPECT_EQ(health.state(), State::kConnecting);
  EXPECT_EQ(health.Weight(kBegin), 0);
  EXPECT_TRUE(health.Success(kBegin));
  EXPECT_FALSE(health.Success(kBegin));
  EXPECT_EQ(health.Weight(kBegin), 1);
}

TEST(PodHealthTest, OnlyFailuresInARowTakeItOut) {
  PodHealth health(3, kSlowStart, false);
  health.Success(kBegin);
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(health.Failure());
    EXPECT_FALSE(health.Failure());
    EXPECT_FALSE(health.Success(kBegin));
  }
  EXPECT_EQ(health.state(), State::kUp);
  EXPECT_FALSE(health.Failure());
  EXPECT_FALSE(health.Failure());
  EXPECT_TRUE(health.Failure());
  EXPECT_EQ(health.state(), State::kDown);
  EXPECT_EQ(health.Weight(kBegin), 0);
  EXPECT_FALSE(health.Failure());
  EXPECT_EQ(health.downs(), 1);
}

TEST(PodHealthTest, WhoComesBackOrJoinsLaterStartsSlowly) {
  PodHealth back(1, kSlowStart, false), later(1, kSlowStart, true);
  back.Success(kBegin);
  back.Failure();
  for (PodHealth* health : {&back, &later}) {
    EXPECT_TRUE(health->Success(kBegin));
    EXPECT_DOUBLE_EQ(health->Weight(kBegin), PodHealth::kFirstWeight);
    EXPECT_DOUBLE_EQ(health->Weight(kBegin + kSlowStart / 2), (1 + PodHealth::kFirstWeight) / 2);
    EXPECT_EQ(health->Weight(kBegin + kSlowStart), 1);
    EXPECT_EQ(health->Weight(kBegin + 100 * kSlowStart), 1);
    EXPECT_DOUBLE_EQ(health->Weight(kBegin - kSlowStart), PodHealth::kFirstWeight);  // the clock was set back
  }
}

TEST(PodHealthTest, WithoutASlowStartTheShareIsWholeAtOnce) {
  PodHealth health(1, absl::ZeroDuration(), true);
  health.Success(kBegin);
  EXPECT_EQ(health.Weight(kBegin), 1);
}

TEST(PodHealthTest, OneThatWasNeverReachedIsLeftOutAndNotCountedAsGoneDown) {
  PodHealth health(2, kSlowStart, false);
  EXPECT_FALSE(health.Failure());
  EXPECT_TRUE(health.Failure());
  EXPECT_EQ(health.state(), State::kDown);
  EXPECT_EQ(health.downs(), 0);
}

}  // namespace
}  // namespace tidepool
