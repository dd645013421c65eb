// Reads from the tiers below memory, measured: each of the two has a gate that keeps prefixes away from it while it is
// slower than computing them. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_LOWER_TIERS_H_
#define TIDEPOOL_CACHESERVICE_TIERS_LOWER_TIERS_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/tiers/block_value.h"
#include "cacheservice/tiers/remote_tier.h"
#include "cacheservice/tiers/tenant_disks.h"
#include "cacheservice/tiers/tier_gate.h"

namespace tidepool {

class LowerTiers {
 public:
  // `disk` and `remote` outlive this; `remote` may be null. `retry`: CacheOptions::slow_tier_retry.
  LowerTiers(TenantDisks* disk, RemoteTier* remote, absl::Duration retry);

  bool has_remote() const { return remote_ != nullptr; }
  const TenantDisks& disk() const { return *disk_; }
  RemoteTier* remote() { return remote_; }  // null: none

  // As TenantDisks::Get and RemoteTier::Get. Who computes `compute_bytes_per_second` of keys and values (0: reads
  // whatever it takes) gets nothing from a tier that is left out for him: misses.
  std::vector<absl::StatusOr<BlockValue>> ReadDisk(absl::Span<const BlockId> ids, double compute_bytes_per_second);
  RemoteTier::Found ReadRemote(absl::Span<const BlockId> ids, const ReadTerms& terms);

  // Values that were asked for and not looked for in the last tier that might have had them.
  uint64_t slow_values() const { return slow_values_; }

  TierGate& disk_gate() { return disk_gate_; }
  TierGate& remote_gate() { return remote_gate_; }
  const TierGate& disk_gate() const { return disk_gate_; }
  const TierGate& remote_gate() const { return remote_gate_; }

 private:
  TenantDisks* const disk_;
  RemoteTier* const remote_;
  TierGate disk_gate_, remote_gate_;
  std::atomic<uint64_t> slow_values_{0};
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_LOWER_TIERS_H_
