#include "cacheservice/tiers/stored_quotas.h"

#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/tenant_disks.h"

namespace tidepool {
namespace {

constexpr std::string_view kPrefix = "quota.";
constexpr std::string_view kEnd = "quota/";  // the first key behind all of them

absl::Status StoreQuota(Database* database, std::string_view tenant, const TenantQuota& quota) {
  std::string key(kPrefix);
  key.append(tenant);
  ByteWriter value;
  value.Put(quota.memory_bytes);
  value.Put(quota.disk_bytes);
  value.Put(quota.pinned_bytes);
  const std::string bytes = std::move(value).Take();
  const Mutation mutation = {.family = Family::kMeta, .key = key, .value = bytes, .erase = quota == TenantQuota()};
  return database->Write({&mutation, 1}, Durability::kSynced);
}

}  // namespace

absl::Status ChangeQuota(Database* database, TenantTable* tenants, TenantDisks* disks, std::string_view name,
                         const TenantQuota& quota) {
  if (name.empty() || name.size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tenant: ", name.size(), " characters, 1 to ", kMaxTenantBytes, " are allowed"));
  }
  const TenantId tenant = tenants->IdOf(name);
  if (tenant == kNoTenant) {
    return absl::ResourceExhaustedError(
        absl::StrCat("tenant: ", TenantTable::kMostTenants - 1, " others are known already"));
  }
  const TenantQuota before = tenants->QuotaOf(tenant);
  // Written first: a quota that a crash leaves behind is one that somebody asked for.
  TP_RETURN_IF_ERROR(StoreQuota(database, name, quota));
  if (const absl::Status disk = disks->SetQuota(tenant, quota.disk_bytes); !disk.ok()) {
    StoreQuota(database, name, before).IgnoreError();
    return disk;
  }
  tenants->SetQuota(tenant, quota);
  return absl::OkStatus();
}

absl::Status LoadQuotas(const Database& database, TenantTable* tenants) {
  absl::Status bad;
  TP_RETURN_IF_ERROR(database.Scan(Family::kMeta, kPrefix, kEnd, [&](std::string_view key, std::string_view value) {
    const std::string tenant(key.substr(kPrefix.size()));
    ByteReader reader(value);
    TenantQuota quota;
    quota.memory_bytes = reader.Get<uint64_t>();
    quota.disk_bytes = reader.Get<uint64_t>();
    quota.pinned_bytes = reader.Get<uint64_t>();
    const TenantId id = tenants->IdOf(tenant);
    if (!reader.done() || id == kNoTenant) {
      bad = absl::DataLossError(
          absl::StrCat("database: the quota of tenant '", absl::CHexEscape(tenant), "' cannot be read"));
      return false;
    }
    tenants->SetQuota(id, quota);
    return true;
  }));
  return bad;
}

}  // namespace tidepool
