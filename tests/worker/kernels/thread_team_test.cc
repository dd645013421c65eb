#include "worker/kernels/cpu/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
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
      team.ForEachInRuns(count, grain, [&](int64_t begin, int64_t end) {
        ASSERT_LE(end - begin, grain);
        for (int64_t i = begin; i < end; ++i) ++times[i];
      });
      for (int64_t i = 0; i < count; ++i) ASSERT_EQ(times[i], 2) << threads << " threads, region " << region;
    }
  }
}

TEST(ThreadTeamTest, EachThreadBeginsWithARunOfItsOwnAndTheOthersHelpAtTheEnd) {
  ThreadTeam team(2);
  std::atomic<bool> came{false};
  std::vector<int64_t> begun;  // by this thread
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int64_t> first_of_other{-1};
  team.ForEachInRuns(10, 1, [&](int64_t begin, int64_t) {
    if (std::this_thread::get_id() == caller) {
      begun.push_back(begin);
      while (!came) std::this_thread::yield();
    } else {
      int64_t none = -1;
      first_of_other.compare_exchange_strong(none, begin);
      came = true;
    }
  });
  EXPECT_EQ(begun[0], 0);
  EXPECT_EQ(first_of_other, 5);
  ThreadTeam alone(1);
  std::vector<int64_t> all;
  alone.ForEachInRuns(4, 1, [&](int64_t begin, int64_t) { all.push_back(begin); });
  EXPECT_EQ(all, (std::vector<int64_t>{0, 1, 2, 3}));
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

TEST(ThreadTeamTest, AThreadThatWaitsDoesWhatIsLeft) {
  ThreadTeam team(2);
  std::atomic<bool> done{false};
  const std::function<void(int64_t)> job = [&](int64_t argument) { done = argument == 7; };
  team.Leave(job, 7);
  // A thread that waits for its first region may sleep: it comes for this one, and does the job after it.
  team.Run([](int) {});
  while (!done) std::this_thread::yield();
  team.FinishLeft();
}

TEST(ThreadTeamTest, WhatIsLeftIsDoneOnceBeforeFinishLeftReturns) {
  for (int threads : {1, 2, 4}) {
    ThreadTeam team(threads);
    for (int round = 0; round < 200; ++round) {
      int calls[8] = {};  // not atomic: FinishLeft orders them before what follows
      const std::function<void(int64_t)> job = [&](int64_t argument) { ++calls[argument]; };
      for (int i = 0; i < 8; ++i) {
        team.ForEach(threads, 1, [&](int64_t begin, int64_t) {
          if (begin == 0) team.Leave(job, i);
        });
      }
      team.FinishLeft();
      for (int i = 0; i < 8; ++i) EXPECT_EQ(calls[i], 1) << threads << " threads, job " << i;
    }
  }
}

}  // namespace
}  // namespace tidepool
