// One Score call: the sink of an engine request that collects log-probabilities for a unary answer.
#ifndef TIDEPOOL_WORKER_RPC_SCORE_CALL_H_
#define TIDEPOOL_WORKER_RPC_SCORE_CALL_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>

#include "base/mutex.h"
#include "tidepool/v1/generation.pb.h"
#include "worker/engine/engine.h"

namespace tidepool {

// Deletes itself when the call is done. The engine's sink may outlive it, but not use it: the call is done only after
// the sink has finished it.
class ScoreCall : public grpc::ServerUnaryReactor {
 public:
  ScoreCall(Engine* engine, absl::StatusOr<GenerationRequest> request, v1::ScoreResponse* response);
  void OnCancel() override;
  void OnDone() override { delete this; }

 private:
  class Sink;

  Engine* const engine_;
  Mutex mutex_;
  uint64_t id_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: not submitted
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_SCORE_CALL_H_
