// Quotas of tenants in the database, where they outlive a restart.
//
//   family meta   "quota." ++ tenant  ->  memory bytes (8) ++ disk bytes (8) ++ pinned bytes (8), little endian
#ifndef TIDEPOOL_CACHESERVICE_TIERS_STORED_QUOTAS_H_
#define TIDEPOOL_CACHESERVICE_TIERS_STORED_QUOTAS_H_

#include <string_view>

#include "absl/status/status.h"
#include "cacheservice/tiers/tenant_table.h"

namespace tidepool {

class Database;
class TenantDisks;

// Checks a quota, stores it (nothing but zeros takes the entry away), and puts it in force; one change at a time.
// InvalidArgument naming the field; ResourceExhausted: too many tenants; else as TenantDisks::SetQuota.
absl::Status ChangeQuota(Database* database, TenantTable* tenants, TenantDisks* disks, std::string_view name,
                         const TenantQuota& quota);

// Adds what is stored. DataLoss naming the tenant of an entry that cannot be read.
absl::Status LoadQuotas(const Database& database, TenantTable* tenants);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_STORED_QUOTAS_H_
