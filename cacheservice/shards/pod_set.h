// The pods of a cache service as one client sees them, and where blocks belong at the moment: a Placement is a picture
// of who can be reached and with what weight, made anew at each change. Pods from DNS are resolved again at an interval
// and when one fails; who is not in the answer any more is only read from, until it fails. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_POD_SET_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_POD_SET_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/shards/pod.h"
#include "cacheservice/shards/pod_list.h"
#include "policies/tier/rendezvous.h"

namespace tidepool {

// Immutable.
struct Placement {
  std::vector<std::shared_ptr<Pod>> pods;  // that can be reached, no name twice
  std::vector<PodShare> shares;            // of each of them
  std::vector<uint64_t> away;              // seeds of known pods that cannot be reached
  int unknown = 0;                         // addresses that were never reached

  // Of pods that cannot be asked.
  int unheard() const { return static_cast<int>(away.size()) + unknown; }
  // Index of the pod with this id, or -1.
  int IndexOf(uint32_t id) const;
};

struct PodSetOptions {
  PodList list;
  RemoteCacheOptions remote;  // `endpoint` is each pod's
  PodTiming timing;
  absl::Duration resolve_interval = absl::Seconds(10);
  // In place of ResolvePods(list).
  std::function<absl::StatusOr<std::vector<std::string>>()> resolve;
  std::string own_name;  // a pod of this name is not used: it is the caller
};

class PodSet {
 public:
  // Called with the pod's id and connection whenever it has answered a probe (Pod::Hooks).
  using OnAnswer = std::function<absl::Status(uint32_t id, RemoteCache&)>;
  PodSet(PodSetOptions options, OnAnswer on_answer);
  // Stop, if it was not called.
  ~PodSet();
  PodSet(const PodSet&) = delete;
  PodSet& operator=(const PodSet&) = delete;

  // Fails what is under way on all pods; from then on none is reached.
  void Stop();
  bool stopping() const { return stopping_.load(); }

  std::shared_ptr<const Placement> placement() const;
  // Every pod that is known, reached or not.
  std::vector<std::shared_ptr<Pod>> all() const;
  // Waits until every pod has answered once or was given up, or until `deadline`.
  void WaitUntilKnown(absl::Time deadline);

 private:
  void Rebuild();
  void Resolve();  // a thread
  void Adopt(const std::vector<std::string>& addresses);
  // Takes out what has left and cannot be reached.
  void Retire();
  std::shared_ptr<Pod> MakePod(std::string address, bool joined_later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const PodSetOptions options_;
  const OnAnswer on_answer_;
  std::atomic<bool> stopping_{false};
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<std::shared_ptr<Pod>> pods_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Placement> placement_ ABSL_GUARDED_BY(mutex_);
  uint32_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  bool resolved_ ABSL_GUARDED_BY(mutex_) = false;     // the first addresses are there
  bool known_ ABSL_GUARDED_BY(mutex_) = false;        // all of them have answered or were given up
  bool resolve_now_ ABSL_GUARDED_BY(mutex_) = false;  // a pod was given up
  std::thread resolver_;                              // of pods from DNS
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_POD_SET_H_
