// One worker's Recall stream on the service's side.
#ifndef TIDEPOOL_CACHESERVICE_RPC_RECALL_STREAM_H_
#define TIDEPOOL_CACHESERVICE_RPC_RECALL_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cacheservice/rpc/cache_context.h"
#include "cacheservice/rpc/outbox.h"
#include "security/caller.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {

// Deletes itself when the stream is done.
class RecallStream : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  RecallStream(CacheContext* context, absl::StatusOr<Caller> caller, std::string peer);
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override {}
  void OnDone() override;

 private:
  absl::Status Take();
  // Returns the bytes of the rows.
  uint64_t Answer(uint64_t id, const std::vector<RowSelection>& selections, absl::Time deadline);
  // Whether another request may be taken: few are being answered and the worker takes its answers.
  bool HasRoom() const;
  // Starts the held read when there is room again. Once, whoever comes first.
  void ReadIfHeld();

  CacheContext* const context_;
  const absl::StatusOr<Caller> caller_;
  const std::shared_ptr<StreamMeter> meter_;
  Outbox<RecallStream, v1::RecallResponse> outbox_;
  grpc::ByteBuffer raw_;  // of the read under way
  v1::RecallRequest request_;
  std::optional<KvLayout> layout_;
  std::atomic<int> answering_{0};
  std::atomic<int64_t> answering_bytes_{0};  // rows asked for and not answered yet
  std::atomic<bool> held_{false};            // the next read waits for room; no read is under way then
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_RECALL_STREAM_H_
