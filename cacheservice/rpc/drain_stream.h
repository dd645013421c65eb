// A Drain call on the service's side: the drain ends with the call, whoever of the two ends first.
#ifndef TIDEPOOL_CACHESERVICE_RPC_DRAIN_STREAM_H_
#define TIDEPOOL_CACHESERVICE_RPC_DRAIN_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <optional>

#include "base/mutex.h"
#include "cacheservice/rpc/cache_context.h"
#include "cacheservice/rpc/pod_drain.h"
#include "tidepool/v1/cache_admin.pb.h"

namespace tidepool {

// Deletes itself when the call is done.
class DrainStream : public grpc::ServerWriteReactor<v1::DrainProgress> {
 public:
  DrainStream(CacheContext* context, bool all_blocks);
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { delete this; }

 private:
  // Writes the newest state: an administrator who reads slowly sees fewer of them.
  void Report(const PodDrain::Progress& progress) ABSL_LOCKS_EXCLUDED(mutex_);
  void End(grpc::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True once: the caller finishes the call then, without the mutex.
  bool TakeFinish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  CacheContext* const context_;
  Mutex mutex_;
  v1::DrainProgress writing_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::DrainProgress> next_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;  // a write is under way
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool mine_ ABSL_GUARDED_BY(mutex_) = false;  // the drain under way is this call's
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_DRAIN_STREAM_H_
