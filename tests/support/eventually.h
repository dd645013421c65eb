// Waiting for what other processes do and nobody announces: a condition is looked at until it holds, or for so long
// that it never will (kProcessTimeout).
#ifndef TIDEPOOL_TESTS_SUPPORT_EVENTUALLY_H_
#define TIDEPOOL_TESTS_SUPPORT_EVENTUALLY_H_

#include <chrono>

#include "base/mutex.h"
#include "tests/support/process.h"

namespace tidepool::test {

// Lets others do something for a moment, in a loop that looks at several things.
inline void Tick(std::chrono::microseconds time) {
  Mutex mutex;
  CondVar nobody;
  const auto until = std::chrono::steady_clock::now() + time;
  MutexLock lock(&mutex);
  while (nobody.WaitUntil(&mutex, until)) {
  }
}

template <typename Condition>
bool Eventually(Condition condition, std::chrono::milliseconds timeout = kProcessTimeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    Tick(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_EVENTUALLY_H_
