#include "security/caller.h"

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tidepool {
namespace {

constexpr absl::string_view kGeneration = "/tidepool.v1.Generation/";
constexpr absl::string_view kCacheStore = "/tidepool.v1.CacheStore/";
constexpr absl::string_view kCacheAdmin = "/tidepool.v1.CacheAdmin/";

bool IsOneTenants(absl::string_view admin_method) {
  return admin_method == "ListSessions" || admin_method == "DescribeSession" || admin_method == "DropSession" ||
         admin_method == "Explain" || admin_method == "Pin" || admin_method == "Unpin" || admin_method == "ListPins";
}

}  // namespace

absl::StatusOr<std::string> Caller::TenantFor(const std::string& requested) const {
  if (all_tenants()) return requested.empty() ? "default" : requested;
  if (requested.empty() || requested == tenant) return tenant;
  return absl::PermissionDeniedError(
      absl::StrCat("tenant: '", absl::CHexEscape(requested), "' is not that of ", name, ", which is '", tenant, "'"));
}

bool IsOpenMethod(std::string_view method) {
  return absl::StartsWith(absl::string_view(method.data(), method.size()), "/grpc.health.v1.Health/");
}

absl::Status MayCall(const Caller& caller, std::string_view method_name) {
  const absl::string_view method(method_name.data(), method_name.size());
  if (caller.anyone || IsOpenMethod(method_name) || absl::StartsWith(method, "/grpc.reflection.")) {
    return absl::OkStatus();
  }
  const bool admin = caller.role == Role::kAdmin;
  bool allowed = admin && caller.all_tenants();
  const char* needed = "an admin of all tenants (*)";
  if (absl::StartsWith(method, kGeneration) && method.substr(kGeneration.size()) != "GetWorkerStats") {
    allowed = admin || caller.role == Role::kUser;
    needed = "role user or admin";
  } else if (absl::StartsWith(method, kCacheStore)) {
    allowed = caller.role == Role::kWorker;
    needed = "role worker";
  } else if (absl::StartsWith(method, kCacheAdmin) && IsOneTenants(method.substr(kCacheAdmin.size()))) {
    allowed = admin;
    needed = "role admin";
  }
  if (allowed) return absl::OkStatus();
  const absl::string_view role(RoleName(caller.role).data(), RoleName(caller.role).size());
  return absl::PermissionDeniedError(absl::StrCat(absl::CHexEscape(method), ": needs ", needed, "; ", caller.name,
                                                  " is ", role, " of tenant ", caller.tenant));
}

}  // namespace tidepool
