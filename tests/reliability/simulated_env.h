// The environment of a simulated RocksDB: the simulated disk, and background jobs on one thread, in the order in which
// they were asked for. A job begins only when every other thread of the process is blocked, which is when somebody
// waits for it, and ends before the next begins: so the order of things is the same in every run, as far as one thread
// at a time is at work otherwise. RocksDB's pauses take no time. Thread-safe.
#ifndef TIDEPOOL_TESTS_RELIABILITY_SIMULATED_ENV_H_
#define TIDEPOOL_TESTS_RELIABILITY_SIMULATED_ENV_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/mutex.h"
#include "rocksdb/env.h"
#include "tests/reliability/simulated_disk.h"

namespace tidepool::test {

class SimulatedEnv final : public rocksdb::EnvWrapper {
 public:
  explicit SimulatedEnv(const std::shared_ptr<SimulatedDisk>& disk);
  ~SimulatedEnv() override;

  // Returns when this holds, and no job waits or runs. Others may wait for jobs meanwhile.
  void Settle(absl::FunctionRef<bool()> holds);

  void Schedule(void (*function)(void*), void* argument, Priority priority, void* tag,
                void (*unschedule)(void*)) override;
  int UnSchedule(void* tag, Priority priority) override;
  unsigned int GetThreadPoolQueueLen(Priority priority) const override;
  void SleepForMicroseconds(int) override {}

 private:
  struct Job {
    void (*function)(void*);
    void* argument;
    void* tag;
    void (*unschedule)(void*);
  };
  // Times each thread has given up its processor to wait, by thread.
  using Waits = std::map<pid_t, uint64_t>;

  void Run();
  // Of the other threads, but for the one in Settle; nullopt: one of them is at work.
  std::optional<Waits> AllBlocked() const;
  void AwaitOthers() const;

  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<pid_t> settling_{0};  // this thread only looks on
  std::thread thread_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_RELIABILITY_SIMULATED_ENV_H_
