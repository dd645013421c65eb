// A FetchBlocks call on the service's side: blocks are read while those before them are sent.
#ifndef TIDEPOOL_CACHESERVICE_RPC_FETCH_STREAM_H_
#define TIDEPOOL_CACHESERVICE_RPC_FETCH_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <vector>

#include "base/mutex.h"
#include "cacheservice/rpc/cache_context.h"
#include "cacheservice/rpc/outbox.h"
#include "tidepool/v1/cache_store.pb.h"

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
  // Reads and sends until all is sent or enough is queued. One at a time; what is left to read keeps the call open.
  // `may_wait`: for disks and checksums; else, on gRPC's threads, the pool goes on where that is needed.
  void Read(bool may_wait);
  absl::Status ReadOnPool();
  // The next value, if it is in memory and goes out as it is. Waking a thread of the pool for it would take longer.
  bool SendAtOnce();
  absl::Status ReadSome();
  void Send(size_t index, const BlockValue& value);

  CacheContext* const context_;
  Outbox<FetchStream, v1::FetchBlocksResponse> outbox_;
  std::vector<BlockId> ids_;
  bool unchecked_ = false;                  // the worker verifies the values
  double compute_bytes_per_second_ = 0;     // of the worker
  size_t next_ = 0;                         // of ids_, to be read
  size_t value_bytes_ = size_t{256} << 10;  // of the last one; most are of one size
  std::atomic<bool> gone_{false};           // the worker
  Mutex mutex_;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;  // Read has left off
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_FETCH_STREAM_H_
