// Who calls, and what he may call. Everything is refused that is not listed here:
//
//   user    Generation, but GetWorkerStats
//   worker  CacheStore
//   admin   what a user may; ListSessions, DescribeSession, DropSession, Explain, Pin, Unpin and ListPins of
//   CacheAdmin;
//           with tenant * all of CacheAdmin, GetWorkerStats, and services that are not named here
//   any     server reflection
//
// Health checks are open to everybody.
#ifndef TIDEPOOL_SECURITY_CALLER_H_
#define TIDEPOOL_SECURITY_CALLER_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "security/access_table.h"

namespace tidepool {

struct Caller {
  std::string name;    // for logs, as AccessTable::Entry
  std::string tenant;  // kAllTenants: any
  Role role = Role::kUser;
  bool anyone = false;  // the service asks nobody who he is: all roles, all tenants

  static Caller Anyone() { return {.name = "anyone", .tenant = std::string(kAllTenants), .anyone = true}; }
  bool all_tenants() const { return tenant == kAllTenants; }
  // Whose things a request is about that names `requested`, or nobody (empty): the caller's own, or "default" for one
  // of all tenants. PermissionDenied when it is not his.
  absl::StatusOr<std::string> TenantFor(const std::string& requested) const;
};

// `method` is /package.Service/Method.
bool IsOpenMethod(std::string_view method);
// PermissionDenied naming the method and what it needs.
absl::Status MayCall(const Caller& caller, std::string_view method);

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_CALLER_H_
