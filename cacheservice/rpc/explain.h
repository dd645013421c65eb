// Why a prompt's blocks would hit or miss: CacheAdmin.Explain.
#ifndef TIDEPOOL_CACHESERVICE_RPC_EXPLAIN_H_
#define TIDEPOOL_CACHESERVICE_RPC_EXPLAIN_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cacheservice/manifests/manifest_store_disk.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tidepool/v1/cache_admin.pb.h"

namespace tidepool {

inline constexpr int kMostComparedSessions = 1000;  // of the tenant, in the order of their names

// All but the pod's name. InvalidArgument naming the field.
absl::Status Explain(TieredStore& blocks, DiskManifestStore& manifests, const v1::ExplainRequest& request,
                     const std::string& tenant, absl::Time deadline, v1::ExplainResponse* response);
// InvalidArgument naming the key.
absl::StatusOr<std::vector<BlockKey>> KeysFrom(const google::protobuf::RepeatedPtrField<std::string>& keys);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_EXPLAIN_H_
