// A FetchBlocks call on the service's side: reads a few blocks at a time and sends them before it reads on.
#ifndef TIDEPOOL_CACHESERVICE_RPC_FETCH_STREAM_H_
#define TIDEPOOL_CACHESERVICE_RPC_FETCH_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <vector>

#include "cacheservice/rpc/cache_context.h"

namespace tidepool {

// Deletes itself when the call is done.
class FetchStream : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // `request` is a FetchBlocksRequest.
  FetchStream(CacheContext* context, grpc::ByteBuffer request);
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  absl::Status Take(grpc::ByteBuffer* request);
  void ReadMore();
  void SendNext();

  CacheContext* const context_;
  std::vector<BlockId> ids_;
  size_t first_ = 0;    // id of values_[0]
  size_t current_ = 0;  // index into values_
  size_t offset_ = 0;   // bytes of it that are sent
  std::vector<BlockValue> values_;
  grpc::ByteBuffer message_;  // being written
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_FETCH_STREAM_H_
