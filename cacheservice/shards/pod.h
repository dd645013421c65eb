// One pod of a cache service: the connection to it, whether it is in use, and what it has done. A thread of its own
// probes it: every probe_interval while it answers, with back-off while it does not. When it is given up, everything
// under way to it fails, so that others can be asked. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_POD_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_POD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/background.h"
#include "base/mutex.h"
#include "cacheservice/remote/remote_cache.h"
#include "cacheservice/shards/pod_health.h"

namespace tidepool {

struct PodTiming {
  absl::Duration probe_interval = absl::Seconds(1);
  absl::Duration probe_timeout = absl::Seconds(2);
  int most_failures = 3;  // probes in a row, then the pod is left out
  absl::Duration slow_start = absl::Seconds(30);
};

class Pod {
 public:
  struct Hooks {
    // What others see of the pod has changed. From its thread.
    std::function<void()> on_change;
    // It has answered a probe; after it was away it is not in use yet, and stays away when this is not OK. From its
    // thread.
    std::function<absl::Status(RemoteCache&)> on_answer;
  };

  // `remote` names the address and is valid (RemoteCache::Connect). `id` is unique among the pods of a client.
  Pod(uint32_t id, RemoteCacheOptions remote, const PodTiming& timing, bool joined_later, Hooks hooks);
  // Stop must have been called.
  ~Pod();
  Pod(const Pod&) = delete;
  Pod& operator=(const Pod&) = delete;

  // Ends its threads and fails what is under way. Not from its own threads or callbacks.
  void Stop();

  uint32_t id() const { return id_; }
  const std::string& address() const { return address_; }

  struct View {
    std::string name;  // the address until it has been reached
    bool reached = false;
    PodHealth::State state = PodHealth::State::kConnecting;
    double weight = 0;
    bool draining = false, leaving = false;
  };
  View view() const;
  // It is not among the resolved addresses any more, or is again.
  void SetLeaving(bool leaving);

  // Calls `use` with the connection and returns true; false once the pod is stopped. Stop waits for it.
  bool Use(absl::FunctionRef<void(RemoteCache&)> use);
  // Runs `job` on one of the pod's few threads; null: the pod is stopped. False: it is stopped already.
  bool Run(std::function<void(RemoteCache*)> job);

  // A call to it has ended so. Failures count, and have it probed at once.
  void Report(const absl::Status& status);
  void CountFailedRows(int64_t rows) { failed_rows_.fetch_add(rows); }
  void CountMovedBlock() { moved_blocks_.fetch_add(1); }
  CachePodStats Stats();

 private:
  void Monitor();
  // Probes once; returns whether it answered.
  bool ProbeOnce();

  const uint32_t id_;
  const std::string address_;
  const PodTiming timing_;
  const Hooks hooks_;
  std::atomic<int64_t> failed_calls_{0}, failed_rows_{0}, moved_blocks_{0};
  mutable Mutex mutex_;
  CondVar changed_;
  PodHealth health_ ABSL_GUARDED_BY(mutex_);
  std::string name_ ABSL_GUARDED_BY(mutex_);
  bool reached_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;
  bool suspect_ ABSL_GUARDED_BY(mutex_) = false;  // a call has failed since the last probe
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  double told_weight_ ABSL_GUARDED_BY(mutex_) = 0;  // what others know, or will know in a moment
  int users_ ABSL_GUARDED_BY(mutex_) = 0;
  // Both live until the end of Stop, when nobody uses them any more.
  std::unique_ptr<RemoteCache> cache_;
  std::unique_ptr<Background> calls_;
  std::thread monitor_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_POD_H_
