#include "cacheservice/tiers/tenant_table.h"

#include "base/check.h"

namespace tidepool {

TenantTable::TenantTable() : facts_(std::make_unique<Facts[]>(kMostTenants)), names_(1) {}

TenantId TenantTable::IdOf(std::string_view name) {
  if (name.empty()) return kNoTenant;
  MutexLock lock(&mutex_);
  const std::string key(name);
  const auto found = ids_.find(key);
  if (found != ids_.end()) return found->second;
  if (names_.size() >= kMostTenants) return kNoTenant;
  const TenantId id = static_cast<TenantId>(names_.size());
  names_.push_back(key);
  ids_[key] = id;
  return id;
}

std::string TenantTable::NameOf(TenantId tenant) const {
  MutexLock lock(&mutex_);
  TIDEPOOL_CHECK(tenant < names_.size());
  return names_[tenant];
}

std::vector<TenantId> TenantTable::All() const {
  MutexLock lock(&mutex_);
  std::vector<TenantId> all;
  for (size_t id = 1; id < names_.size(); ++id) all.push_back(static_cast<TenantId>(id));
  return all;
}

TenantQuota TenantTable::QuotaOf(TenantId tenant) const {
  const Facts& facts = facts_[tenant];
  return {.memory_bytes = facts.memory_bytes, .disk_bytes = facts.disk_bytes, .pinned_bytes = facts.pinned_bytes};
}

void TenantTable::SetQuota(TenantId tenant, const TenantQuota& quota) {
  TIDEPOOL_CHECK(tenant != kNoTenant);
  facts_[tenant].memory_bytes = quota.memory_bytes;
  facts_[tenant].disk_bytes = quota.disk_bytes;
  facts_[tenant].pinned_bytes = quota.pinned_bytes;
}

}  // namespace tidepool
