// A few threads that run jobs in order: what may block, away from threads that must not.
#ifndef TIDEPOOL_BASE_BACKGROUND_H_
#define TIDEPOOL_BASE_BACKGROUND_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace tidepool {

class Background {
 public:
  explicit Background(int threads);
  // Runs what is queued, then ends.
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void Run(std::function<void()> job);

 private:
  void Work();

  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_BACKGROUND_H_
