#include "base/histogram.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tidepool {
namespace {

constexpr double kBounds[] = {1, 10, 100};

TEST(HistogramTest, AnObservationIsInTheFirstBucketThatIsNotBelowIt) {
  Histogram histogram(kBounds);
  for (double value : {-5.0, 1.0, 1.5, 10.0, 99.0, 100.5, 1e9}) histogram.Observe(value);
  EXPECT_EQ(histogram.bucket(0), 2);
  EXPECT_EQ(histogram.bucket(1), 2);
  EXPECT_EQ(histogram.bucket(2), 1);
  EXPECT_EQ(histogram.bucket(3), 2) << "above all bounds";
  EXPECT_EQ(histogram.count(), 7);
  EXPECT_DOUBLE_EQ(histogram.sum(), -5 + 1 + 1.5 + 10 + 99 + 100.5 + 1e9);
}

TEST(HistogramTest, WhatIsNoNumberIsNotCountedAndInfinityIsAboveAllBounds) {
  Histogram histogram(kBounds);
  histogram.Observe(std::nan(""));
  histogram.Observe(2, 0);
  EXPECT_EQ(histogram.count(), 0);
  EXPECT_EQ(histogram.sum(), 0);
  histogram.Observe(HUGE_VAL);
  EXPECT_EQ(histogram.bucket(3), 1);
}

TEST(HistogramTest, ACopyDoesNotSeeWhatFollows) {
  Histogram histogram(kBounds);
  histogram.Observe(2, 3);
  const Histogram copy = histogram;
  histogram.Observe(2);
  EXPECT_EQ(copy.count(), 3);
  EXPECT_EQ(copy.bucket(1), 3);
  EXPECT_DOUBLE_EQ(copy.sum(), 6);
}

}  // namespace
}  // namespace tidepool
