// Whose values the tiers hold: the names of tenants as small numbers, with their quotas. Names are only ever added.
// Thread-safe; what tiers ask for each value takes no lock.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_TENANT_TABLE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_TENANT_TABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"

namespace tidepool {

using TenantId = uint16_t;
inline constexpr TenantId kNoTenant = 0;  // not known, or one tenant too many

// Bytes of values and what keeping them costs. 0: no limit but the tier's.
struct TenantQuota {
  uint64_t memory_bytes = 0;
  uint64_t disk_bytes = 0;
  uint64_t pinned_bytes = 0;  // 0: a quarter of the memory tier
  friend bool operator==(const TenantQuota&, const TenantQuota&) = default;
};

class TenantTable {
 public:
  static constexpr size_t kMostTenants = 4096;

  TenantTable();
  // Adds the name when it is new. kNoTenant: the name is empty, or kMostTenants are known.
  TenantId IdOf(std::string_view name);
  // Empty for kNoTenant.
  std::string NameOf(TenantId tenant) const;
  std::vector<TenantId> All() const;  // without kNoTenant

  TenantQuota QuotaOf(TenantId tenant) const;
  void SetQuota(TenantId tenant, const TenantQuota& quota);
  uint64_t memory_quota(TenantId tenant) const { return facts_[tenant].memory_bytes.load(std::memory_order_relaxed); }

  // Values that left memory or disk because their tenant was past his quota.
  void CountQuotaEvictions(TenantId tenant, uint64_t values) { facts_[tenant].evictions += values; }
  uint64_t quota_evictions(TenantId tenant) const { return facts_[tenant].evictions; }

 private:
  struct Facts {
    std::atomic<uint64_t> memory_bytes{0}, disk_bytes{0}, pinned_bytes{0}, evictions{0};
  };

  const std::unique_ptr<Facts[]> facts_;  // [kMostTenants]
  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, TenantId> ids_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> names_ ABSL_GUARDED_BY(mutex_);  // by id
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_TENANT_TABLE_H_
