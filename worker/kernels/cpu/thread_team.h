// A fixed team of threads that run one function together. The caller is thread 0; the others wait by spinning briefly,
// then sleeping, because a step has hundreds of short parallel regions. Not re-entrant; one caller at a time.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_THREAD_TEAM_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_THREAD_TEAM_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/mutex.h"

namespace tidepool {

class ThreadTeam {
 public:
  explicit ThreadTeam(int threads);  // >= 1
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }
  // Calls body(thread) for thread 0 .. size-1 at once and returns when all have returned.
  void Run(absl::FunctionRef<void(int)> body);
  // Splits [0, count) into chunks of `grain` handed out in order to whoever is free. Results must not depend on who ran
  // what.
  void ForEach(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body);

  // A moment of a thread that waits for another.
  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

 private:
  void Work(int thread);

  const int size_;
  std::atomic<uint64_t> generation_{0};  // one more for each region
  std::atomic<int> running_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int> sleeping_{0};
  const absl::FunctionRef<void(int)>* body_ = nullptr;
  Mutex mutex_;
  CondVar wake_;
  std::vector<std::thread> threads_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_THREAD_TEAM_H_
