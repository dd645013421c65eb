// Session manifests on two pods of several, so that a session outlives a pod.
//
// A turn is written to the session's first pod, which refuses it when it does not follow what is stored, then to the
// second; both are durable before Put returns. Where one is away, the next pod takes its place; where no other is
// there, one copy is acknowledged and counted as degraded. A read asks every pod for its revision and takes the newest,
// so a pod that comes back with an old copy does no harm; what lacks the newest is given it then (repair).
//
// Too many pods away to be sure - two or more, and the two to which the session belongs among them - is Unavailable,
// never an older turn. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_MANIFEST_COPIES_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_MANIFEST_COPIES_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/api/manifest_store.h"
#include "cacheservice/shards/pod_set.h"

namespace tidepool {

class ManifestCopies {
 public:
  static constexpr int kCopies = 2;
  static constexpr int kMostRepairs = 16;                 // under way; more are left to the next read
  static constexpr size_t kMostForgotten = size_t{4096};  // deletions that a pod has missed; the oldest are dropped

  // `pods` outlives it.
  explicit ManifestCopies(PodSet* pods) : pods_(pods) {}

  absl::Status Put(const SessionManifest& manifest, absl::Time deadline);
  absl::StatusOr<std::optional<SessionManifest>> Get(std::string_view tenant, std::string_view session_id,
                                                     absl::Time deadline);
  // Where a pod is away the deletion is remembered, and done before it is in use again.
  absl::Status Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline);

  // Stores a manifest of another pod on the session's two. OK when it, or a later turn, is on at least one.
  absl::Status CopyIn(const SessionManifest& manifest, absl::Time deadline);

  // PodSet::OnAnswer: does what the pod has missed.
  absl::Status CatchUp(uint32_t pod, RemoteCache& cache);

  int64_t degraded() const { return degraded_; }
  int64_t repaired() const { return repaired_; }

 private:
  using Session = std::pair<std::string, std::string>;  // tenant, id
  // What the pods of a placement have of a session.
  struct Holdings {
    int64_t newest = 0;              // 0: nobody has it
    std::vector<int64_t> revisions;  // [pod of the placement]; 0: none, -1: it did not answer
    absl::Status uncertain;          // not OK: a newer one may exist
  };
  Holdings Ask(const Placement& placement, const std::string& tenant, const std::string& session_id,
               absl::Time deadline);
  // Puts a turn to the pod that decides.
  absl::Status PutFirst(const Placement& placement, size_t pod, const SessionManifest& manifest, absl::Time deadline);
  void Repair(const std::shared_ptr<const Placement>& placement, const SessionManifest& manifest,
              const Holdings& holdings);

  PodSet* const pods_;
  std::atomic<int64_t> degraded_{0}, repaired_{0};
  std::atomic<int> repairs_{0};
  Mutex mutex_;
  std::map<uint32_t, std::deque<Session>> forgotten_ ABSL_GUARDED_BY(mutex_);  // by pod: deletions to be done
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_MANIFEST_COPIES_H_
