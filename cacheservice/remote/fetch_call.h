// A FetchBlocks call on the worker's side, by gRPC's callback API: the next messages are received while the caller
// copies and checks one.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_FETCH_CALL_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_FETCH_CALL_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <deque>

#include "base/mutex.h"
#include "tidepool/v1/cache_store.grpc.pb.h"

namespace tidepool {

// One thread calls it.
class FetchCall final : public grpc::ClientReadReactor<grpc::ByteBuffer> {
 public:
  // `context` outlives the call; so does `request`.
  FetchCall(grpc::Channel* channel, grpc::ClientContext* context, const v1::FetchBlocksRequest* request);
  // After Finish.
  ~FetchCall() override = default;

  // Waits for the next message. False: there is none.
  bool Read(grpc::ByteBuffer* message);
  // Waits for the end; cancel the context first to have it at once.
  grpc::Status Finish();

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void ReadOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  CondVar changed_;
  grpc::ByteBuffer raw_;                                           // of the read under way
  std::deque<grpc::ByteBuffer> received_ ABSL_GUARDED_BY(mutex_);  // not taken yet
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;  // no further message comes
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_FETCH_CALL_H_
