// Copies values from the disk tier to the remote tier before the disk drops them: one thread that walks the older half
// of the disk, oldest first. The disk itself is the queue, so nothing waits for the network and no memory is held; what
// the disk drops before its turn has come is counted there. An engine that is away loses nothing as long as less than
// half of the disk is written anew meanwhile. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_COPY_AHEAD_H_
#define TIDEPOOL_CACHESERVICE_TIERS_COPY_AHEAD_H_

#include <cstdint>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/tiers/disk_tier.h"
#include "cacheservice/tiers/remote_tier.h"

namespace tidepool {

class CopyAhead {
 public:
  // Both outlive the copier. Listens to the disk's writes, so it is made before the first of them.
  CopyAhead(DiskTier* disk, RemoteTier* remote);
  // Ends after the batch under way. What is not copied is still on disk.
  ~CopyAhead();
  CopyAhead(const CopyAhead&) = delete;
  CopyAhead& operator=(const CopyAhead&) = delete;

 private:
  void Run();
  void Wake();
  // Tries until all is stored, or given up, or the copier closes.
  void CopyBatch(DiskTier::Leaving batch);
  // Until `time`; false: closing.
  bool WaitUntil(absl::Time time);

  DiskTier* const disk_;
  RemoteTier* const remote_;
  Mutex mutex_;
  CondVar wake_;
  bool work_ ABSL_GUARDED_BY(mutex_) = true;  // the disk was written since the last look; at first: what a restart left
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_COPY_AHEAD_H_
