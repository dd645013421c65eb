// One worker's Offload stream on the service's side.
#ifndef TIDEPOOL_CACHESERVICE_RPC_OFFLOAD_STREAM_H_
#define TIDEPOOL_CACHESERVICE_RPC_OFFLOAD_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "cacheservice/rpc/cache_context.h"
#include "cacheservice/rpc/outbox.h"
#include "cacheservice/wire/payload_message.h"
#include "security/caller.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {

// While a message is copied and checked, the next is received. Deletes itself when the stream is done. Values that did
// not arrive in full are forgotten with it.
class OffloadStream : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  OffloadStream(CacheContext* context, absl::StatusOr<Caller> caller, std::string peer);
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override { outbox_.OnWriteDone(ok); }
  void OnCancel() override {}
  void OnDone() override;

 private:
  struct Message {
    absl::Status status;         // not OK: the worker sent something else
    bool end = false;            // the worker has ended the stream, or is gone
    v1::OffloadRequest request;  // without the payload
    Payload payload;
  };

  void ReadOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes what has been received, in order, unless another thread does.
  void TakeReceived();
  absl::Status Take(const Message& message);
  absl::Status TakeHello(const v1::OffloadRequest& request);
  absl::Status TakeFrame(const Message& message);

  CacheContext* const context_;
  const absl::StatusOr<Caller> caller_;
  const std::shared_ptr<StreamMeter> meter_;
  Outbox<OffloadStream, v1::OffloadResponse> outbox_;
  grpc::ByteBuffer raw_;  // of the read under way
  Mutex mutex_;
  std::deque<Message> received_ ABSL_GUARDED_BY(mutex_);  // not taken yet
  bool taking_ ABSL_GUARDED_BY(mutex_) = false;  // a thread is, and has what follows to itself; stays once it is closed
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;  // a read is under way
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;   // nothing more is read
  bool open_ = false;                            // the hello has come
  std::optional<KvLayout> layout_;               // nullopt: values of any shape
  std::string tenant_;                           // of the hello
  // The value under way.
  uint64_t sequence_ = 0;
  BlockPut value_;
  size_t value_bytes_ = 0;
  std::atomic<int64_t> unanswered_bytes_{0};
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_OFFLOAD_STREAM_H_
