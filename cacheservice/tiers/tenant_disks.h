// The disk below memory: one tier for everybody, and for each tenant with a quota of the disk one of his own, in files
// of its own (<data_dir>/tenants/<hex of his name>). So a tenant past his quota drops his own oldest values, and never
// another's; what is set aside for him the others do not have. Where there is a remote tier, each of them copies ahead
// to it. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_TENANT_DISKS_H_
#define TIDEPOOL_CACHESERVICE_TIERS_TENANT_DISKS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "cacheservice/tiers/disk_tier.h"

namespace tidepool {

class CopyAhead;
class Database;
class RemoteTier;

class TenantDisks {
 public:
  static constexpr size_t kMostOwn = 16;  // tenants with a quota of the disk
  static constexpr uint64_t kLeastOwnBytes = uint64_t{16} << 20;

  struct Options {
    std::string data_dir;
    uint64_t disk_bytes = 0;  // of all together
    std::function<absl::Time()> clock = absl::Now;
  };
  // `database` is that of the common tier. All that is pointed to outlives this; `remote` may be null. The quotas that
  // `tenants` has are in force.
  static absl::StatusOr<std::unique_ptr<TenantDisks>> Open(const Options& options, Database* database,
                                                           TenantTable* tenants, DepartureLog* departures,
                                                           RemoteTier* remote);
  ~TenantDisks();

  // Sets a quota of the disk, or takes it away (0): the tenant's own tier and what is in it are gone then, and he is
  // like the others. InvalidArgument naming the range, FailedPrecondition: too many tenants have one, or less than half
  // of the disk would be left to the others.
  absl::Status SetQuota(TenantId tenant, uint64_t disk_bytes) ABSL_LOCKS_EXCLUDED(change_);
  // Another size of all together. As DiskTier::SetDiskBytes; FailedPrecondition as SetQuota.
  absl::Status SetDiskBytes(uint64_t disk_bytes) ABSL_LOCKS_EXCLUDED(change_);

  // As those of DiskTier, each value in the tier that has it or, to be stored, is its tenant's.
  std::vector<absl::Status> Put(absl::Span<const DiskPut> puts, bool durable);
  std::vector<absl::StatusOr<BlockValue>> Get(absl::Span<const BlockId> ids);
  std::vector<absl::StatusOr<uint64_t>> Verify(absl::Span<const BlockId> ids);
  bool Contains(const BlockId& id) const { return TenantOf(id).has_value(); }
  bool Repeats(const BlockId& id, TenantId tenant);
  std::optional<TenantId> TenantOf(const BlockId& id) const;
  bool ExpireSome(absl::Duration ttl, DiskTier::InUse in_use);
  void Use(absl::Span<const BlockKey> keys, absl::Time when);
  std::vector<BlockId> Ids(bool durable_only) const;
  DiskTier::CopyStats copy_stats() const;
  TierStats Stats() const;
  absl::flat_hash_map<TenantId, DiskIndex::Usage> UsageByTenant() const;

  // Of all databases.
  absl::Status Flush();
  absl::Status Compact();
  uint64_t UsedBytes() const;
  uint64_t losses() const;  // as Database's
  bool writable() const;

 private:
  struct Own;  // a tenant's
  using Owns = std::vector<std::shared_ptr<Own>>;

  TenantDisks(const Options& options, Database* database, TenantTable* tenants, DepartureLog* departures,
              RemoteTier* remote);
  absl::StatusOr<std::shared_ptr<Own>> OpenOwn(TenantId tenant, uint64_t disk_bytes);
  Owns All() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t OwnBytes(TenantId but) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Reads each id where it is: by an own tier, what is left by the common one.
  template <typename Result>
  std::vector<Result> Read(absl::Span<const BlockId> ids,
                           absl::FunctionRef<std::vector<Result>(DiskTier&, absl::Span<const BlockId>)> read);

  const std::string data_dir_;
  const std::function<absl::Time()> clock_;
  Database* const database_;
  TenantTable* const tenants_;
  DepartureLog* const departures_;
  RemoteTier* const remote_;
  Mutex change_;  // one change of quotas at a time; taken before mutex_
  uint64_t disk_bytes_ ABSL_GUARDED_BY(change_);
  std::unique_ptr<DiskTier> common_;
  std::unique_ptr<CopyAhead> copy_ahead_;  // null: no remote tier
  std::atomic<bool> any_own_{false};
  mutable Mutex mutex_;
  Owns owns_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_TENANT_DISKS_H_
