// A fixed team of threads for short parallel regions, of which a step has hundreds. The caller is thread 0; the others
// wait by spinning briefly, then sleeping. A region does not wait for a thread that has not come by its end: another
// process may have that one's core for milliseconds. Not re-entrant; one caller at a time.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_THREAD_TEAM_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_THREAD_TEAM_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
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
  // Calls body(0) here and, at the same time, body(thread) on other threads, each once at most: a thread that has not
  // come when body(0) returns is left out. So the body shares its work out among whoever calls it. Returns when all
  // calls have returned.
  void Run(absl::FunctionRef<void(int)> body);
  // Splits [0, count) into chunks of `grain` handed out in order to whoever is free. Results must not depend on who ran
  // what.
  void ForEach(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body);

  // The same where what is computed reads memory in order: each thread begins with a share of its own, goes through it
  // from its beginning, and then helps with the others'.
  void ForEachInRuns(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body);

  // Leaves job(argument) to a thread that waits for a region: the regions to come go on meanwhile, with the threads
  // that are free. `job` must live until FinishLeft. From any thread.
  void Leave(absl::FunctionRef<void(int64_t)> job, int64_t argument);
  // Does what nobody has begun, and waits for the rest. By the caller of Run, between regions.
  void FinishLeft();

  // A moment of a thread that waits for another.
  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  // Waits, in a region, for what another thread works on and will soon have done. Another process may have its core.
  template <typename Condition>
  static void WaitUntil(const Condition& condition) {
    for (int spins = 0; !condition(); ++spins) {
      if (spins < kSpins) {
        Pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  // Some 20 us: longer than the gap between two regions of a step, shorter than a scheduler slice.
  static constexpr int kSpins = 4000;

  // A thread, the caller included. On a cache line of its own.
  struct alignas(64) Member {
    // The newest region that it has joined, or that has ended without it.
    std::atomic<uint64_t> settled{0};
    std::atomic<uint64_t> done{0};  // the newest region whose body it has called
    std::atomic<int64_t> next{0};   // ForEachInRuns: of its share, what is handed out next
  };
  struct LeftJob {
    absl::FunctionRef<void(int64_t)> job;
    int64_t argument;
  };
  void Work(int thread);
  // Does a job that was left; false: there is none.
  bool DoLeft();

  const int size_;
  std::atomic<uint64_t> region_{0};  // the newest one's number
  std::atomic<bool> stop_{false};
  std::atomic<bool> sleeping_{false};                   // a thread sleeps, and nobody has woken it
  const absl::FunctionRef<void(int)>* body_ = nullptr;  // of the region; for those who have joined it
  Mutex mutex_;
  CondVar wake_;
  Mutex left_mutex_;
  std::vector<LeftJob> left_ ABSL_GUARDED_BY(left_mutex_);
  std::atomic<int32_t> left_count_{0};    // of left_; a job is counted as running before it is off
  std::atomic<int32_t> left_running_{0};  // taken from it and not done
  std::vector<Member> members_;           // by thread
  std::vector<std::thread> threads_;      // but the caller
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_THREAD_TEAM_H_
