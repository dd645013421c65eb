#include "base/running_line.h"

#include <gtest/gtest.h>

namespace tidepool {
namespace {

using Alone = RunningLine::Alone;

// What reading takes: 2 ms, and 1 ms for each 1,000 bytes.
double Seconds(double bytes) { return 0.002 + bytes * 1e-6; }

TEST(RunningLineTest, NothingIsKnownBeforeTwoMeasurements) {
  RunningLine line(Alone::kThroughOrigin);
  EXPECT_EQ(line.At(1000), 0);
  EXPECT_FALSE(line.known());
  line.Observe(1000, 1);
  EXPECT_FALSE(line.known());
  line.Observe(1000, 1);
  EXPECT_TRUE(line.known());
  line.Forget();
  EXPECT_FALSE(line.known());
  EXPECT_EQ(line.At(1000), 0);
}

TEST(RunningLineTest, LatencyAndRateComeApartWhenSizesDiffer) {
  RunningLine line(Alone::kThroughOrigin);
  for (int i = 0; i < 40; ++i) line.Observe(i % 4 * 10'000, Seconds(i % 4 * 10'000));
  EXPECT_NEAR(line.fixed(), 0.002, 1e-4);
  EXPECT_NEAR(line.slope(), 1e-6, 1e-8);
  EXPECT_NEAR(line.At(1'000'000), Seconds(1'000'000), 0.01);
}

TEST(RunningLineTest, SizesThatAreAllAlikeSayHowItGoesOnAsTheyAreUsed) {
  RunningLine reads(Alone::kThroughOrigin), steps(Alone::kLevel);
  for (int i = 0; i < 5; ++i) {
    reads.Observe(1000, 0.5);
    steps.Observe(1000, 0.5);
  }
  EXPECT_NEAR(reads.At(10'000), 5, 0.01) << "ten times the bytes";
  EXPECT_NEAR(steps.At(10'000), 0.5, 1e-6) << "another depth";
}

TEST(RunningLineTest, NeitherPartIsNegative) {
  RunningLine falling(Alone::kLevel), steep(Alone::kThroughOrigin);
  for (int i = 0; i < 10; ++i) {
    falling.Observe(i, 10 - 0.5 * i);
    steep.Observe(100 + i, 100 + 40.0 * i);
  }
  EXPECT_EQ(falling.slope(), 0);
  EXPECT_GT(falling.fixed(), 5);
  EXPECT_EQ(steep.fixed(), 0);
  EXPECT_GT(steep.slope(), 1);
}

TEST(RunningLineTest, NewerMeasurementsCountMore) {
  RunningLine line(Alone::kThroughOrigin);
  for (int i = 0; i < 50; ++i) line.Observe(1000, 1);
  for (int i = 0; i < 20; ++i) line.Observe(1000, 2);
  EXPECT_GT(line.At(1000), 1.8);
}

TEST(RunningLineTest, OnePauseIsPutAsideAndTwoAreAChange) {
  RunningLine line(Alone::kThroughOrigin);
  for (int i = 0; i < 10; ++i) line.Observe(1000, 0.001);
  line.Observe(1000, 1);
  EXPECT_NEAR(line.At(1000), 0.001, 1e-6);
  line.Observe(1000, 0.001);
  line.Observe(1000, 1);
  EXPECT_NEAR(line.At(1000), 0.001, 1e-6) << "another, later";
  line.Observe(1000, 1.2);
  EXPECT_NEAR(line.At(1000), 1.1, 0.05) << "what was before is forgotten";
  line.Observe(1000, 0.001);
  line.Observe(1000, 5);
  EXPECT_NEAR(line.At(1000), 1.1, 0.05) << "far off in different ways";
  line.Observe(1000, 1.1);
  line.Observe(1000, 0.001);
  line.Observe(1000, 0.001);
  EXPECT_NEAR(line.At(1000), 0.001, 1e-6);
}

}  // namespace
}  // namespace tidepool
