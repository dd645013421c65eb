// The answers that a server is streaming, so that it closes no connection while a client still reads.
#ifndef TIDEPOOL_WORKER_RPC_OPEN_STREAMS_H_
#define TIDEPOOL_WORKER_RPC_OPEN_STREAMS_H_

#include <chrono>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"

namespace tidepool {

class OpenStreams {
 public:
  // False: the server is closing, the stream is to be refused. Leave has to follow all the same.
  bool Enter() {
    MutexLock lock(&mutex_);
    ++count_;
    return !closing_;
  }
  void Leave() {
    MutexLock lock(&mutex_);
    if (--count_ == 0) none_.SignalAll();
  }
  // From now on Enter refuses. Waits until all have left, no longer than `grace`. True: there were some.
  bool Close(std::chrono::steady_clock::duration grace) {
    const auto deadline = std::chrono::steady_clock::now() + grace;
    MutexLock lock(&mutex_);
    closing_ = true;
    const bool some = count_ > 0;
    while (count_ > 0 && none_.WaitUntil(&mutex_, deadline)) {
    }
    return some;
  }

 private:
  Mutex mutex_;
  CondVar none_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_OPEN_STREAMS_H_
