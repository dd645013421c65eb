#include "base/background.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <vector>

namespace tidepool {
namespace {

TEST(BackgroundTest, OneThreadRunsJobsInOrderAndTheDestructorWaitsForAll) {
  std::vector<int> order;
  {
    Background background(1);
    for (int i = 0; i < 100; ++i) background.Run([&order, i] { order.push_back(i); });
  }
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(BackgroundTest, SeveralThreadsRunJobsAtTheSameTime) {
  std::atomic<int> arrived = 0;
  {
    Background background(3);
    // Each waits for the two others: with fewer threads this would never end.
    for (int i = 0; i < 3; ++i) {
      background.Run([&arrived] {
        for (++arrived; arrived < 3;) {
        }
      });
    }
  }
  EXPECT_EQ(arrived, 3);
}

TEST(BackgroundTest, AJobMayAddJobs) {
  std::atomic<int> runs = 0;
  {
    Background background(2);
    background.Run([&] {
      ++runs;
      background.Run([&runs] { ++runs; });
    });
  }
  EXPECT_EQ(runs, 2);
}

}  // namespace
}  // namespace tidepool
