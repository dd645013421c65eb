#include "worker/rpc/generation_stream.h"

#include <utility>

#include "worker/rpc/convert.h"
#include "worker/rpc/open_streams.h"
#include "worker/rpc/status_details.h"

namespace tidepool {
namespace {

// Of one message. With 20 alternatives each a token takes some 300 bytes, so a message stays below the 4 MiB that gRPC
// receives by default.
constexpr int kMaxJoinedTokens = 4096;

}  // namespace

grpc::Status GenerationStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      StatusDetailsOf(status));
}

grpc::Status GenerationStatus(const GenerationResult& result) {
  if (!result.status.ok()) return GenerationStatus(result.status);
  switch (result.reason) {
    case FinishReason::kCancelled: return grpc::Status(grpc::StatusCode::CANCELLED, "cancelled");
    case FinishReason::kDeadline: return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "the deadline has passed");
    case FinishReason::kStop:
    case FinishReason::kLength: break;
  }
  return grpc::Status::OK;
}

GenerationStream::GenerationStream(Engine* engine, OpenStreams* open, absl::StatusOr<GenerationRequest> request,
                                   std::function<void(int64_t)> on_generated,
                                   std::function<void(const GenerationResult&)> on_end)
    : engine_(engine), open_(open), sink_(std::make_shared<Sink>(this, std::move(on_generated), std::move(on_end))) {
  if (!open_->Enter() && request.ok()) request = absl::UnavailableError("the worker is shutting down");
  if (!request.ok()) {
    sink_->OnRefused(request.status());
    Finish(GenerationStatus(request.status()));
    return;
  }
  absl::StatusOr<uint64_t> id = engine_->Submit(*std::move(request), sink_);
  if (!id.ok()) {
    sink_->OnRefused(id.status());
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

void GenerationStream::OnCancel() {
  uint64_t id = 0;
  {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    id = id_;
  }
  if (id != 0) engine_->Cancel(id);
}

void GenerationStream::OnWriteDone(bool ok) { sink_->OnWriteDone(ok); }

void GenerationStream::OnDone() {
  sink_->Detach();
  OpenStreams* open = open_;
  delete this;
  open->Leave();
}

void GenerationStream::Sink::OnProgress(int64_t prefilled_tokens, int64_t prompt_tokens) {
  MutexLock lock(&mutex_);
  progress_.emplace();
  progress_->set_prefilled_tokens(prefilled_tokens);
  progress_->set_prompt_tokens(prompt_tokens);
  WriteNext();
}

void GenerationStream::Sink::OnTokens(TokenDelta delta) {
  on_generated_(static_cast<int64_t>(delta.tokens.size()));
  MutexLock lock(&mutex_);
  if (tokens_.empty() || tokens_.back().ids_size() >= kMaxJoinedTokens) tokens_.emplace_back();
  v1::Tokens& tokens = tokens_.back();
  tokens.mutable_ids()->Add(delta.tokens.begin(), delta.tokens.end());
  tokens.mutable_text()->append(delta.text);
  for (const TokenLogprob& logprob : delta.logprobs) LogprobTo(logprob, *tokens.add_logprobs());
  WriteNext();
}

void GenerationStream::Sink::OnRefused(const absl::Status& status) const {
  GenerationResult result;
  result.status = status;
  if (on_end_) on_end_(result);
}

void GenerationStream::Sink::OnFinished(GenerationResult result) {
  if (on_end_) on_end_(result);
  MutexLock lock(&mutex_);
  result_ = std::move(result);
  WriteNext();
}

void GenerationStream::Sink::Detach() {
  MutexLock lock(&mutex_);
  stream_ = nullptr;
}

void GenerationStream::Sink::OnWriteDone(bool ok) {
  MutexLock lock(&mutex_);
  writing_ = false;
  broken_ = broken_ || !ok;
  WriteNext();
}

void GenerationStream::Sink::WriteNext() {
  if (writing_ || stream_ == nullptr) return;
  message_.Clear();
  if (broken_) {
    // The client is gone; OnCancel has told the engine. The call ends when the engine has let go.
    if (result_.has_value() && !finished_sent_) {
      finished_sent_ = true;
      stream_->Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone"));
    }
    return;
  }
  if (progress_.has_value()) {
    *message_.mutable_progress() = *std::exchange(progress_, std::nullopt);
  } else if (!tokens_.empty()) {
    *message_.mutable_tokens() = std::move(tokens_.front());
    tokens_.pop_front();
  } else if (result_.has_value() && !finished_sent_) {
    finished_sent_ = true;
    if (!result_->status.ok()) return stream_->Finish(GenerationStatus(result_->status));
    *message_.mutable_finished() = FinishedTo(*result_);
    return stream_->StartWriteAndFinish(&message_, grpc::WriteOptions(), GenerationStatus(*result_));
  } else {
    return;
  }
  writing_ = true;
  stream_->StartWrite(&message_);
}

}  // namespace tidepool
