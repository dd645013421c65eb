// Waiting for what other processes do and nobody announces: a condition is looked at until it holds, or for so long
// that it never will (kProcessTimeout).
#ifndef TIDEPOOL_TESTS_SUPPORT_EVENTUALLY_H_
#define TIDEPOOL_TESTS_SUPPORT_EVENTUALLY_H_

#include <chrono>

#include "base/mutex.h"
#include "tests/support/process.h"

namespace tidepool::test {

template <typename Condition>
bool Eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kProcessTimeout;
  Mutex mutex;
  CondVar nobody;
  while (!condition()) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return false;
    MutexLock lock(&mutex);
    nobody.WaitUntil(&mutex, now + std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_EVENTUALLY_H_
