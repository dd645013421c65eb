#include "base/mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tidepool {
namespace {

struct Counter {
  Mutex mutex;
  CondVar changed;
  int value ABSL_GUARDED_BY(mutex) = 0;
};

TEST(MutexTest, GuardsAFieldAgainstLostUpdates) {
  Counter counter;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) {
        MutexLock lock(&counter.mutex);
        ++counter.value;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  MutexLock lock(&counter.mutex);
  EXPECT_EQ(counter.value, 40'000);
}

TEST(CondVarTest, SignalAllWakesEveryWaiter) {
  Counter counter;
  std::vector<std::thread> waiters;
  for (int t = 0; t < 3; ++t) {
    waiters.emplace_back([&] {
      MutexLock lock(&counter.mutex);
      while (counter.value == 0) counter.changed.Wait(&counter.mutex);
    });
  }
  {
    MutexLock lock(&counter.mutex);
    counter.value = 1;
  }
  counter.changed.SignalAll();
  for (std::thread& waiter : waiters) waiter.join();
}

TEST(CondVarTest, TheMutexIsHeldAgainAfterAWait) {
  Counter counter;
  std::thread pong([&] {
    for (int i = 0; i < 100; ++i) {
      MutexLock lock(&counter.mutex);
      while (counter.value % 2 == 0) counter.changed.Wait(&counter.mutex);
      ++counter.value;
      counter.changed.Signal();
    }
  });
  for (int i = 0; i < 100; ++i) {
    MutexLock lock(&counter.mutex);
    while (counter.value % 2 == 1) counter.changed.Wait(&counter.mutex);
    ++counter.value;
    counter.changed.Signal();
  }
  pong.join();
  MutexLock lock(&counter.mutex);
  EXPECT_EQ(counter.value, 200);
}

TEST(CondVarTest, WaitUntilReturnsFalseAfterADeadlineInThePast) {
  Counter counter;
  MutexLock lock(&counter.mutex);
  EXPECT_FALSE(counter.changed.WaitUntil(&counter.mutex, std::chrono::steady_clock::time_point::min()));
}

}  // namespace
}  // namespace tidepool
