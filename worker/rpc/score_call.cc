#include "worker/rpc/score_call.h"

#include <utility>

#include "worker/rpc/convert.h"
#include "worker/rpc/generation_stream.h"

namespace tidepool {

class ScoreCall::Sink : public GenerationSink {
 public:
  Sink(ScoreCall* call, v1::ScoreResponse* response) : call_(call), response_(response) {}
  void OnTokens(TokenDelta delta) override {
    for (const TokenLogprob& logprob : delta.logprobs) LogprobTo(logprob, *response_->add_logprobs());
  }
  void OnFinished(GenerationResult result) override {
    *response_->mutable_usage() = UsageTo(result.usage);
    call_->Finish(GenerationStatus(result));
  }

 private:
  ScoreCall* const call_;
  v1::ScoreResponse* const response_;
};

ScoreCall::ScoreCall(Engine* engine, absl::StatusOr<GenerationRequest> request, v1::ScoreResponse* response)
    : engine_(engine) {
  if (!request.ok()) {
    Finish(GenerationStatus(request.status()));
    return;
  }
  const absl::StatusOr<uint64_t> id = engine_->Submit(*std::move(request), std::make_shared<Sink>(this, response));
  if (!id.ok()) {
    Finish(GenerationStatus(id.status()));
    return;
  }
  bool cancel = false;
  {
    MutexLock lock(&mutex_);
    id_ = *id;
    cancel = cancelled_;
  }
  if (cancel) engine_->Cancel(*id);
}

void ScoreCall::OnCancel() {
  uint64_t id = 0;
  {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    id = id_;
  }
  if (id != 0) engine_->Cancel(id);
}

}  // namespace tidepool
