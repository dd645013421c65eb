// What each tenant has in the tiers, as plain values.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_TENANT_STATS_H_
#define TIDEPOOL_CACHESERVICE_TIERS_TENANT_STATS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "cacheservice/tiers/disk_index.h"
#include "cacheservice/tiers/memory_tier.h"
#include "cacheservice/tiers/tenant_table.h"

namespace tidepool {

struct TenantStats {
  std::string tenant;  // empty: of values whose tenant is not known
  TenantQuota quota;
  uint64_t memory_bytes = 0, memory_objects = 0;
  uint64_t disk_bytes = 0, disk_objects = 0;
  uint64_t puts = 0;  // values newly stored in memory
  uint64_t quota_evictions = 0;
};

// Of those that have, or had since the start, values or a quota; by name.
std::vector<TenantStats> CollectTenantStats(const TenantTable& tenants,
                                            const absl::flat_hash_map<TenantId, MemoryTier::TenantUsage>& memory,
                                            const absl::flat_hash_map<TenantId, DiskIndex::Usage>& disk);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_TENANT_STATS_H_
