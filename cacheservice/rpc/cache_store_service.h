// CacheStore over the storage of one data directory. Callback API; whatever may wait for the disk runs on the context's
// threads.
#ifndef TIDEPOOL_CACHESERVICE_RPC_CACHE_STORE_SERVICE_H_
#define TIDEPOOL_CACHESERVICE_RPC_CACHE_STORE_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "cacheservice/rpc/cache_context.h"
#include "security/caller.h"

namespace tidepool {

// `context` outlives the service.
std::unique_ptr<grpc::Service> MakeCacheStoreService(CacheContext* context);
std::unique_ptr<grpc::Service> MakeCacheAdminService(CacheContext* context);

// Whether the caller's tenant is this one; or why it is not known who calls.
absl::Status IsTenantOf(const absl::StatusOr<Caller>& caller, const std::string& tenant);

grpc::Status ToGrpc(const absl::Status& status);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_CACHE_STORE_SERVICE_H_
