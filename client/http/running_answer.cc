#include "client/http/running_answer.h"

#include <utility>

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
  for (int i = 0; i < request_.choices(); ++i) StartChoice(i);
}

void RunningAnswer::StartChoice(int index) {
  WorkerPool::Wanted wanted{options_.tenant, request_.model, request_.session_id(), {}};
  {
    MutexLock lock(&mutex_);
    if (over_) return;
    wanted.without = choices_[static_cast<size_t>(index)].tried;
  }
  v1::EstimateRequest question;
  auto asked = request_.Choice(index, options_.id);
  if (auto* chat = std::get_if<v1::ChatRequest>(&asked)) {
    *question.mutable_chat() = std::move(*chat);
  } else {
    *question.mutable_generate() = std::get<v1::GenerateRequest>(std::move(asked));
  }
  pool_->Find(std::move(wanted), std::move(question),
              [self = shared_from_this(), index](absl::StatusOr<WorkerPool::Route> route) {
                self->OnRoute(index, std::move(route));
              });
}

void RunningAnswer::OnRoute(int index, absl::StatusOr<WorkerPool::Route> route) {
  MutexLock lock(&mutex_);
  if (over_) return;
  Choice& choice = choices_[static_cast<size_t>(index)];
  if (!route.ok()) return Fail(choice.left.ok() ? route.status() : choice.left);
  choice.worker = std::move(route->worker);
  if (choice.session_turns < 0) choice.session_turns = route->session_turns;
  const ServedModel& model = choice.worker.model();
  if (answer_ == nullptr) {
    answer_ = std::make_unique<OpenAiAnswer>(
        request_, AnswerHeading{options_.id, model.id, options_.created_unix_seconds}, model.vocabulary);
  }
  choice.tried.insert(choice.worker.address());
  choice.so_far.Restart();
  end_.worker = choice.worker.address();
  GenerationClient& client = choice.worker.client();
  auto reader = std::make_shared<Reader>(shared_from_this(), index);
  auto asked = request_.Choice(index, options_.id);
  const auto set_turns = [&](auto& turn) {
    if (choice.session_turns >= 0) turn.set_session_turns(choice.session_turns);
  };
  if (auto* chat = std::get_if<v1::ChatRequest>(&asked)) {
    set_turns(*chat);
    choice.call = client.StartChat(std::move(*chat), std::move(reader), options_.deadline, options_.traceparent);
  } else {
    auto& generate = std::get<v1::GenerateRequest>(asked);
    set_turns(generate);
    choice.call = client.StartGenerate(std::move(generate), std::move(reader), options_.deadline, options_.traceparent);
  }
}

void RunningAnswer::OnResponse(int index, v1::GenerateResponse response) {
  MutexLock lock(&mutex_);
  if (over_) return;
  Choice& choice = choices_[static_cast<size_t>(index)];
  std::shared_ptr<GenerationCall> call = choice.call;
  // From the first response on the request is accepted: what goes wrong later is said in the stream.
  if (request_.stream) StartStream();
  std::string events;
  if (response.has_tokens()) {
    const absl::StatusOr<v1::Tokens> tokens = choice.so_far.New(std::move(*response.mutable_tokens()));
    if (!tokens.ok()) return Fail(tokens.status());
    if (tokens->ids_size() > 0 || !tokens->text().empty()) events = answer_->Add(index, *tokens);
  }
  if (events.empty()) return call->Next();
  exchange_->Write(std::move(events), [call = std::move(call)] { call->Next(); });
}

void RunningAnswer::OnDone(int index, absl::StatusOr<v1::Finished> result) {
  if (AskAgain(index, result.status())) return StartChoice(index);
  MutexLock lock(&mutex_);
  Choice& choice = choices_[static_cast<size_t>(index)];
  choice.ended = true;
  if (over_) return;
  if (!result.ok()) return Fail(result.status());
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

bool RunningAnswer::AskAgain(int index, const absl::Status& status) {
  MutexLock lock(&mutex_);
  Choice& choice = choices_[static_cast<size_t>(index)];
  if (over_ || !client::WorkerHasGone(status, /*cancelled=*/false)) return false;
  // With a session the worker might have stored the turn: who knows how many turns there were can ask again.
  if (request_.session_id().empty() ? choice.so_far.begun() : choice.session_turns < 0) return false;
  choice.left = status;
  choice.call = nullptr;
  return true;
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
