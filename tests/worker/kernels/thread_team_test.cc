#include "worker/kernels/cpu/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace tidepool {
namespace {

TEST(ThreadTeamTest, EachChunkIsDoneOnceByTheEndOfItsRegion) {
  // Also more threads than cores: some come late, and regions end without them.
  for (int threads : {1, 2, 3, 16}) {
    ThreadTeam team(threads);
    EXPECT_EQ(team.size(), threads);
    for (int region = 0; region < 2000; ++region) {
      const int64_t count = region % 37, grain = 1 + region % 3;
      std::vector<std::atomic<int>> times(count);
      team.ForEach(count, grain, [&](int64_t begin, int64_t end) {
        ASSERT_LE(end - begin, grain);
        for (int64_t i = begin; i < end; ++i) ++times[i];
      });
      for (int64_t i = 0; i < count; ++i) ASSERT_EQ(times[i], 1) << threads << " threads, region " << region;
    }
  }
}

TEST(ThreadTeamTest, ABodyIsCalledByTheCallerAndOnceAtMostByEachOther) {
  ThreadTeam team(4);
  for (int region = 0; region < 2000; ++region) {
    std::atomic<int> calls[4] = {};
    team.Run([&](int thread) { ++calls[thread]; });
    EXPECT_EQ(calls[0], 1);
    for (int thread = 1; thread < 4; ++thread) EXPECT_LE(calls[thread], 1);
  }
}

TEST(ThreadTeamTest, AnotherThreadComesWhenThereIsTime) {
  ThreadTeam team(2);
  for (int region = 0; region < 3; ++region) {
    std::atomic<bool> came{false};
    team.Run([&](int thread) {
      if (thread == 1) came = true;
      while (!came) std::this_thread::yield();
    });
    EXPECT_TRUE(came);
  }
}

}  // namespace
}  // namespace tidepool
