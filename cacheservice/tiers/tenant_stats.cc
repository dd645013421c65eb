#include "cacheservice/tiers/tenant_stats.h"

#include <algorithm>
#include <utility>

namespace tidepool {

std::vector<TenantStats> CollectTenantStats(const TenantTable& tenants,
                                            const absl::flat_hash_map<TenantId, MemoryTier::TenantUsage>& memory,
                                            const absl::flat_hash_map<TenantId, DiskIndex::Usage>& disk) {
  std::vector<TenantId> ids = tenants.All();
  ids.push_back(kNoTenant);
  std::vector<TenantStats> all;
  for (const TenantId id : ids) {
    TenantStats stats;
    stats.tenant = tenants.NameOf(id);
    stats.quota = tenants.QuotaOf(id);
    if (const auto found = memory.find(id); found != memory.end()) {
      stats.memory_bytes = found->second.bytes;
      stats.memory_objects = found->second.objects;
      stats.puts = found->second.puts;
    }
    if (const auto found = disk.find(id); found != disk.end()) {
      stats.disk_bytes = found->second.bytes;
      stats.disk_objects = found->second.objects;
    }
    stats.quota_evictions = tenants.quota_evictions(id);
    const bool has_values = stats.puts > 0 || stats.memory_objects > 0 || stats.disk_objects > 0;
    if (has_values || stats.quota != TenantQuota()) all.push_back(std::move(stats));
  }
  std::sort(all.begin(), all.end(), [](const TenantStats& a, const TenantStats& b) { return a.tenant < b.tenant; });
  return all;
}

}  // namespace tidepool
