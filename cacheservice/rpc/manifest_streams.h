// PutManifest and GetManifest on the service's side.
#ifndef TIDEPOOL_CACHESERVICE_RPC_MANIFEST_STREAMS_H_
#define TIDEPOOL_CACHESERVICE_RPC_MANIFEST_STREAMS_H_

#include <grpcpp/grpcpp.h>

#include <string>

#include "cacheservice/rpc/cache_context.h"
#include "security/caller.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {

// Both delete themselves when their call is done.
class PutManifestStream : public grpc::ServerReadReactor<v1::ManifestFrame> {
 public:
  PutManifestStream(CacheContext* context, absl::StatusOr<Caller> caller, absl::Time deadline);
  void OnReadDone(bool ok) override;
  void OnDone() override;

 private:
  absl::Status Take();
  absl::Status Store();

  CacheContext* const context_;
  const absl::StatusOr<Caller> caller_;
  const absl::Time deadline_;
  v1::ManifestFrame frame_;
  uint64_t expected_ = 0;
  bool copy_ = false;
  std::string bytes_;
};

class GetManifestStream : public grpc::ServerWriteReactor<v1::ManifestFrame> {
 public:
  GetManifestStream(CacheContext* context, const absl::StatusOr<Caller>& caller, absl::Time deadline,
                    const v1::GetManifestRequest* request);
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  void SendRevision(int64_t revision);
  void SendNext();

  CacheContext* const context_;
  v1::ManifestFrame frame_;
  std::string bytes_;
  size_t offset_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_MANIFEST_STREAMS_H_
