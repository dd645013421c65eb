// A FetchBlocks call on the worker's side, by gRPC's callback API.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_FETCH_CALL_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_FETCH_CALL_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <functional>

#include "base/mutex.h"
#include "tidepool/v1/cache_store.grpc.pb.h"

namespace tidepool {

class FetchCall final : public grpc::ClientReadReactor<grpc::ByteBuffer> {
 public:
  // Takes one message after the other on gRPC's threads, while what it has just brought in is still in the processor's
  // caches; others of these threads receive on. False: no more are wanted, the call is cancelled.
  using Take = std::function<bool(grpc::ByteBuffer*)>;

  // `context` outlives the call; so do `request` and what `take` uses.
  FetchCall(grpc::Channel* channel, grpc::ClientContext* context, const v1::FetchBlocksRequest* request, Take take);
  // After Finish.
  ~FetchCall() override = default;

  // Waits for the end. `take` is not called any more.
  grpc::Status Finish();

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  grpc::ClientContext* const context_;
  const Take take_;
  grpc::ByteBuffer message_;  // of the read under way
  Mutex mutex_;
  CondVar changed_;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_FETCH_CALL_H_
