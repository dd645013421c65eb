// Block values in a distributed engine that speaks RESP, below the disk: Redis Cluster, one Redis, Valkey, Kvrocks. A
// cache like the tiers above: whatever goes wrong there (refused, slow, evicted, damaged, half a value) is a miss and a
// counter, never an error to the reader and never a wrong byte. When it fails several times in a row a circuit breaker
// keeps readers away from it, so that they wait for nothing.
//
// Values are written as docs/decisions/0012-remote-tier.md says. Thread-safe; calls wait for the network until their
// deadline.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_REMOTE_TIER_H_
#define TIDEPOOL_CACHESERVICE_TIERS_REMOTE_TIER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/circuit_breaker.h"
#include "base/mutex.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/resp/cluster_client.h"
#include "cacheservice/tiers/block_value.h"
#include "cacheservice/tiers/disk_tier.h"
#include "cacheservice/tiers/remote_options.h"
#include "cacheservice/tiers/tier_stats.h"

namespace tidepool {

class RemoteTier {
 public:
  // Checks the options; connects when it is first used, so that an engine that is away keeps nobody from starting.
  // InvalidArgument as RemoteTierOptions::Validate, and for files that cannot be used.
  static absl::StatusOr<std::unique_ptr<RemoteTier>> Open(const RemoteTierOptions& options);
  ~RemoteTier();
  RemoteTier(const RemoteTier&) = delete;
  RemoteTier& operator=(const RemoteTier&) = delete;

  struct Found {
    std::vector<BlockValue> values;  // in order; null: a miss
    bool complete = true;            // else the engine could not be asked about some of them
  };
  // Verified values. Takes as many round trips as one value has levels (head, pieces), whatever their number.
  Found Get(absl::Span<const BlockId> ids, absl::Time deadline);

  // One block and those of its layers that are asked for.
  struct Wanted {
    BlockKey key;
    std::vector<int32_t> layers;
  };
  // How many leading blocks have all wanted layers there. Reads no value; 0 when the engine cannot be asked.
  int CountLeading(absl::Span<const Wanted> blocks, absl::Time deadline);

  // Stores values that are not there already; for one caller at a time. One status for each: FailedPrecondition when
  // the engine refuses it (no memory, read-only, no permission), else why it could not be stored, or was not tried.
  std::vector<absl::Status> Put(absl::Span<const DiskPut> puts);
  // Until then Put does not try.
  absl::Time WritesAllowedAt() const;
  // `count` values were given up.
  void CountWriteFailures(uint64_t count);

  RemoteTierStats Stats() const;

 private:
  using Reply = absl::StatusOr<RespReply>;
  using Requests = absl::Span<const ClusterClient::Request>;
  struct Reading;

  RemoteTier(const RemoteTierOptions& options, const ClusterClientOptions& client);

  // Null: no client was free in time, or the breaker does not let it through.
  std::unique_ptr<ClusterClient> TakeClient(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  void ReturnClient(std::unique_ptr<ClusterClient> client) ABSL_LOCKS_EXCLUDED(mutex_);
  // The results of a batch, or nullopt: it was not let through.
  std::optional<std::vector<Reply>> Ask(Requests requests, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  void TellBreaker(const absl::Status& outcome) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void ReadHeads(std::vector<Reading>* readings, absl::Time deadline);
  void ReadPieces(std::vector<Reading>* readings, absl::Time deadline);
  void ForgetCorrupt(absl::Span<const Reading> readings, absl::Time deadline);
  void Write(absl::Span<const DiskPut> puts, absl::Time deadline, std::vector<absl::Status>* statuses);
  std::vector<bool> AlreadyThere(absl::Span<const DiskPut> puts, absl::Span<const uint32_t> tags, absl::Time deadline);

  const RemoteTierOptions options_;
  const std::string ttl_ms_;
  const ClusterClientOptions client_options_;
  mutable Mutex mutex_;
  CondVar returned_;  // a client is free
  std::vector<std::unique_ptr<ClusterClient>> free_ ABSL_GUARDED_BY(mutex_);
  int readers_ ABSL_GUARDED_BY(mutex_) = 0;  // clients made
  CircuitBreaker breaker_ ABSL_GUARDED_BY(mutex_);
  CircuitBreaker write_breaker_
      ABSL_GUARDED_BY(mutex_);  // writes that are refused: no memory, read-only, no permission
  RemoteTierStats stats_ ABSL_GUARDED_BY(mutex_);
  const std::unique_ptr<ClusterClient> writer_;  // of Put
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_REMOTE_TIER_H_
