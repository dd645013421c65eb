// Has values leave the disk that nobody uses: one thread that looks for them again and again, a little at a time, and
// pauses after each little. What was read from memory, or is pinned there, is used. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_DISK_EXPIRY_H_
#define TIDEPOOL_CACHESERVICE_TIERS_DISK_EXPIRY_H_

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/tiers/memory_tier.h"
#include "cacheservice/tiers/tenant_disks.h"

namespace tidepool {

class DiskExpiry {
 public:
  // Looks every sixty-fourth part of `ttl`, at least once a minute; 0: never. Both outlive it.
  DiskExpiry(absl::Duration ttl, TenantDisks* disk, const MemoryTier* memory);
  // Ends after the look under way.
  ~DiskExpiry();
  DiskExpiry(const DiskExpiry&) = delete;
  DiskExpiry& operator=(const DiskExpiry&) = delete;

  // All that is due, without pauses.
  void ExpireAll();

 private:
  // True: there is more.
  bool ExpireSome();
  void Run();
  // False: closing.
  bool Pause(absl::Duration pause);

  const absl::Duration ttl_;
  TenantDisks* const disk_;
  const MemoryTier* const memory_;
  Mutex mutex_;
  CondVar changed_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_DISK_EXPIRY_H_
