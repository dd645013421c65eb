// One Generate or Chat call: the sink of an engine request and the writer of a stream. Tokens that come while a write
// is under way are joined into few messages, so the engine never waits for a reader and what is held is bounded by the
// answer.
#ifndef TIDEPOOL_WORKER_RPC_GENERATION_STREAM_H_
#define TIDEPOOL_WORKER_RPC_GENERATION_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/mutex.h"
#include "tidepool/v1/generation.pb.h"
#include "worker/engine/engine.h"

namespace tidepool {

class OpenStreams;  // worker/rpc/open_streams.h

// Deletes itself when the call is done. The engine holds its sink apart, which outlives it.
class GenerationStream : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  // on_generated: called with the number of tokens as they come, from the engine thread; also when the client is gone.
  // on_end: called once, when the engine has ended the request or refused it; null: nobody. open: outlives this, which
  // is among them.
  GenerationStream(Engine* engine, OpenStreams* open, absl::StatusOr<GenerationRequest> request,
                   std::function<void(int64_t)> on_generated, std::function<void(const GenerationResult&)> on_end);
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // What the engine writes to and the stream reads from.
  class Sink : public GenerationSink {
   public:
    Sink(GenerationStream* stream, std::function<void(int64_t)> on_generated,
         std::function<void(const GenerationResult&)> on_end)
        : on_generated_(std::move(on_generated)), on_end_(std::move(on_end)), stream_(stream) {}
    void OnProgress(int64_t prefilled_tokens, int64_t prompt_tokens) override;
    void OnTokens(TokenDelta delta) override;
    void OnFinished(GenerationResult result) override;

    // The engine has not taken the request.
    void OnRefused(const absl::Status& status) const;
    // The stream is gone.
    void Detach();
    void OnWriteDone(bool ok);

   private:
    void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

    const std::function<void(int64_t)> on_generated_;
    const std::function<void(const GenerationResult&)> on_end_;
    Mutex mutex_;
    GenerationStream* stream_ ABSL_GUARDED_BY(mutex_);
    std::optional<v1::Progress> progress_ ABSL_GUARDED_BY(mutex_);
    std::deque<v1::Tokens> tokens_ ABSL_GUARDED_BY(mutex_);  // each of a size that any client receives
    std::optional<GenerationResult> result_ ABSL_GUARDED_BY(mutex_);
    bool writing_ ABSL_GUARDED_BY(mutex_) = false;
    bool broken_ ABSL_GUARDED_BY(mutex_) = false;
    bool finished_sent_ ABSL_GUARDED_BY(mutex_) = false;
    v1::GenerateResponse message_ ABSL_GUARDED_BY(mutex_);
  };

  Engine* const engine_;
  OpenStreams* const open_;
  std::shared_ptr<Sink> sink_;
  Mutex mutex_;
  uint64_t id_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: not submitted
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

grpc::Status GenerationStatus(const absl::Status& status);
// Of a request that has ended: CANCELLED and DEADLINE_EXCEEDED are how it ended, not failures of the engine.
grpc::Status GenerationStatus(const GenerationResult& result);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_GENERATION_STREAM_H_
