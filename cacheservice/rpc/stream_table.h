// The open streams of workers, each with what it has carried and how long answers take: for those who look for a slow
// one. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_RPC_STREAM_TABLE_H_
#define TIDEPOOL_CACHESERVICE_RPC_STREAM_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace tidepool {

struct StreamStats {
  enum class Kind : uint8_t { kOffload, kRecall };
  uint64_t id = 0;  // rising
  Kind kind = Kind::kOffload;
  std::string peer, tenant;
  absl::Duration open;
  uint64_t requests = 0;  // answered
  uint64_t bytes = 0;     // of values received, or of rows sent
  uint64_t under_way = 0;
  absl::Duration mean;  // of an answer, of late
  absl::Duration longest;
};

// One stream's counts.
class StreamMeter {
 public:
  StreamMeter(uint64_t id, StreamStats::Kind kind, std::string peer) {
    stats_.id = id;
    stats_.kind = kind;
    stats_.peer = std::move(peer);
  }
  void SetTenant(std::string tenant) {
    MutexLock lock(&mutex_);
    stats_.tenant = std::move(tenant);
  }
  // A request has come; returns when, for Answered.
  absl::Time Asked();
  void Answered(absl::Time asked, uint64_t bytes);
  StreamStats Stats() const;

 private:
  const absl::Time opened_ = absl::Now();
  mutable Mutex mutex_;
  StreamStats stats_ ABSL_GUARDED_BY(mutex_);
};

class StreamTable {
 public:
  // The meter is in the table until nobody holds it. The table outlives it.
  std::shared_ptr<StreamMeter> Add(StreamStats::Kind kind, std::string peer);
  std::vector<StreamStats> Stats() const;
  size_t size() const {
    MutexLock lock(&mutex_);
    return meters_.size();
  }

 private:
  mutable Mutex mutex_;
  uint64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, const StreamMeter*> meters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_STREAM_TABLE_H_
