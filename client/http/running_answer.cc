#include "client/http/running_answer.h"

#include <utility>

#include "base/status_macros.h"
#include "client/http/api_error.h"

namespace tidepool::http {

class RunningAnswer::Reader : public GenerationCall::Reader {
 public:
  Reader(std::shared_ptr<RunningAnswer> answer, int index) : answer_(std::move(answer)), index_(index) {}
  void OnResponse(v1::GenerateResponse response) override { answer_->OnResponse(index_, std::move(response)); }
  void OnDone(absl::StatusOr<v1::Finished> result) override { answer_->OnDone(index_, std::move(result)); }

 private:
  const std::shared_ptr<RunningAnswer> answer_;
  const int index_;
};

void RunningAnswer::Start(OpenAiRequest request, std::shared_ptr<HttpExchange> exchange, WorkerPool* pool,
                          Options options) {
  std::shared_ptr<RunningAnswer> answer(
      new RunningAnswer(std::move(request), std::move(exchange), pool, std::move(options)));
  answer->Begin();
}

RunningAnswer::RunningAnswer(OpenAiRequest request, std::shared_ptr<HttpExchange> exchange, WorkerPool* pool,
                             Options options)
    : request_(std::move(request)),
      exchange_(std::move(exchange)),
      pool_(pool),
      options_(std::move(options)),
      choices_(static_cast<size_t>(request_.choices())),
      left_(request_.choices()) {}

void RunningAnswer::Begin() {
  exchange_->OnGone([weak = weak_from_this()] {
    if (const auto answer = weak.lock()) answer->OnGone();
  });
  MutexLock lock(&mutex_);
  for (int i = 0; i < request_.choices(); ++i) {
    if (absl::Status started = StartChoice(i); !started.ok()) return Fail(started);
  }
}

absl::Status RunningAnswer::StartChoice(int index) {
  Choice& choice = choices_[static_cast<size_t>(index)];
  TP_ASSIGN_OR_RETURN(choice.worker,
                      pool_->Choose(options_.tenant, request_.model, request_.session_id(), choice.tried));
  const ServedModel& model = choice.worker.model();
  if (answer_ == nullptr) {
    answer_ = std::make_unique<OpenAiAnswer>(
        request_, AnswerHeading{options_.id, model.id, options_.created_unix_seconds}, model.vocabulary);
  }
  choice.tried.insert(choice.worker.address());
  end_.worker = choice.worker.address();
  GenerationClient& client = choice.worker.client();
  auto reader = std::make_shared<Reader>(shared_from_this(), index);
  auto asked = request_.Choice(index, options_.id);
  if (auto* chat = std::get_if<v1::ChatRequest>(&asked)) {
    choice.call = client.StartChat(std::move(*chat), std::move(reader), options_.deadline);
  } else {
    choice.call =
        client.StartGenerate(std::get<v1::GenerateRequest>(std::move(asked)), std::move(reader), options_.deadline);
  }
  return absl::OkStatus();
}

void RunningAnswer::OnResponse(int index, v1::GenerateResponse response) {
  MutexLock lock(&mutex_);
  if (over_) return;
  Choice& choice = choices_[static_cast<size_t>(index)];
  choice.begun = true;
  std::shared_ptr<GenerationCall> call = choice.call;
  // From the first response on the request is accepted: what goes wrong later is said in the stream.
  if (request_.stream) StartStream();
  std::string events = response.has_tokens() ? answer_->Add(index, response.tokens()) : std::string();
  if (events.empty()) return call->Next();
  exchange_->Write(std::move(events), [call = std::move(call)] { call->Next(); });
}

void RunningAnswer::OnDone(int index, absl::StatusOr<v1::Finished> result) {
  MutexLock lock(&mutex_);
  Choice& choice = choices_[static_cast<size_t>(index)];
  choice.ended = true;
  if (over_) return;
  if (!result.ok()) {
    // Another worker can take what this one never began. With a session it might have: a turn must not run twice.
    if (absl::IsUnavailable(result.status()) && !choice.begun && request_.session_id().empty()) {
      choice.ended = false;
      if (StartChoice(index).ok()) return;
      choice.ended = true;
    }
    return Fail(result.status());
  }
  end_.prompt_tokens += result->usage().prompt_tokens();
  end_.cached_tokens += result->usage().cached_prompt_tokens();
  end_.generated_tokens += result->usage().generated_tokens();
  if (request_.stream) StartStream();
  std::string events = answer_->End(index, *result);
  choice.worker = WorkerPool::Lease();
  --left_;
  if (!request_.stream) {
    if (left_ > 0) return;
    exchange_->Respond({.body = answer_->Whole()});
    return End(200);
  }
  if (left_ == 0) events += answer_->Closing();
  exchange_->Write(std::move(events), nullptr);
  if (left_ > 0) return;
  exchange_->EndStream();
  End(200);
}

void RunningAnswer::OnGone() {
  MutexLock lock(&mutex_);
  if (over_) return;
  End(499);
  CancelAll();
}

void RunningAnswer::StartStream() {
  if (std::exchange(streaming_, true)) return;
  exchange_->StartStream("text/event-stream; charset=utf-8");
  if (std::string opening = answer_->Opening(); !opening.empty()) exchange_->Write(std::move(opening), nullptr);
}

void RunningAnswer::Fail(const absl::Status& status) {
  const ApiError error = ApiErrorFrom(status, request_.chat);
  if (streaming_) {
    exchange_->Write(OpenAiAnswer::Broken(error), nullptr);
    exchange_->EndStream();
  } else {
    exchange_->Respond(error.Response());
  }
  End(error.status);
  CancelAll();
}

void RunningAnswer::End(int status) {
  over_ = true;
  end_.status = status;
  options_.on_end(end_);
}

void RunningAnswer::CancelAll() {
  for (const Choice& choice : choices_) {
    if (choice.call != nullptr && !choice.ended) choice.call->Cancel();
  }
}

}  // namespace tidepool::http
