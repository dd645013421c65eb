// One worker's Offload stream on the service's side.
#ifndef TIDEPOOL_CACHESERVICE_RPC_OFFLOAD_STREAM_H_
#define TIDEPOOL_CACHESERVICE_RPC_OFFLOAD_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cacheservice/rpc/cache_context.h"
#include "cacheservice/rpc/outbox.h"
#include "cacheservice/wire/payload_message.h"
#include "security/caller.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {

// Deletes itself when the stream is done. Values that did not arrive in full are forgotten with it.
class OffloadStream : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  OffloadStream(CacheContext* context, absl::StatusOr<Caller> caller, std::string peer);
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override { outbox_.OnWriteDone(ok); }
  void OnCancel() override {}
  void OnDone() override;

 private:
  absl::Status Take();
  absl::Status TakeHello();
  absl::Status TakeFrame();

  CacheContext* const context_;
  const absl::StatusOr<Caller> caller_;
  const std::shared_ptr<StreamMeter> meter_;
  Outbox<OffloadStream, v1::OffloadResponse> outbox_;
  grpc::ByteBuffer raw_;        // of the read under way
  v1::OffloadRequest request_;  // without the payload
  Payload payload_;
  bool open_ = false;               // the hello has come
  std::optional<KvLayout> layout_;  // nullopt: values of any shape
  std::string tenant_;              // of the hello
  // The value under way.
  uint64_t sequence_ = 0;
  BlockPut value_;
  size_t value_bytes_ = 0;
  std::atomic<int64_t> unanswered_bytes_{0};
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_OFFLOAD_STREAM_H_
