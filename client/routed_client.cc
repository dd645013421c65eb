#include "client/routed_client.h"

#include <algorithm>
#include <optional>
#include <random>
#include <set>
#include <tuple>
#include <type_traits>
#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/answer_so_far.h"
#include "client/estimates.h"
#include "client/request_text.h"
#include "client/routing.h"

namespace tidepool {
namespace {

constexpr int kAttempts = 6;  // of one call
constexpr absl::Duration kFirstPause = absl::Milliseconds(100), kLongestPause = absl::Seconds(2);
constexpr absl::Duration kFirstRest = absl::Milliseconds(500), kLongestRest = absl::Seconds(10);

// Responses of a call, taken by the thread that waits for the answer.
class Inbox : public GenerationCall::Reader {
 public:
  void OnResponse(v1::GenerateResponse response) override {
    MutexLock lock(&mutex_);
    response_ = std::move(response);
    changed_.SignalAll();
  }
  void OnDone(absl::StatusOr<v1::Finished> result) override {
    MutexLock lock(&mutex_);
    result_ = std::move(result);
    changed_.SignalAll();
  }
  // The next response, or nothing when the call has ended.
  std::optional<v1::GenerateResponse> Take() {
    MutexLock lock(&mutex_);
    while (!response_.has_value() && !result_.has_value()) changed_.Wait(&mutex_);
    return std::exchange(response_, std::nullopt);
  }
  absl::StatusOr<v1::Finished> Result() {
    MutexLock lock(&mutex_);
    while (!result_.has_value()) changed_.Wait(&mutex_);
    return *result_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::optional<v1::GenerateResponse> response_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::StatusOr<v1::Finished>> result_ ABSL_GUARDED_BY(mutex_);
};

v1::EstimateRequest QuestionAbout(const v1::GenerateRequest& request) {
  v1::EstimateRequest question;
  *question.mutable_generate() = request;
  return question;
}
v1::EstimateRequest QuestionAbout(const v1::ChatRequest& request) {
  v1::EstimateRequest question;
  *question.mutable_chat() = request;
  return question;
}

}  // namespace

class RoutedClient::Impl {
 public:
  Impl(const std::vector<std::string>& addresses, std::shared_ptr<const ChannelSecurity> security) {
    TIDEPOOL_CHECK(!addresses.empty());
    for (const std::string& address : addresses) workers_.push_back(std::make_unique<Worker>(address, security));
  }

  template <typename Request>
  absl::StatusOr<v1::Finished> Run(Request request, const EventHandler& on_event, absl::Time deadline) {
    TP_RETURN_IF_ERROR(client::CheckText(request));
    const uint64_t cancels = CancelsSoFar();
    client::AnswerSoFar so_far;
    std::set<Worker*> tried;
    for (int attempt = 1;; ++attempt) {
      if (!request.session_id().empty() && !request.has_session_turns()) LearnTurns(request, deadline);
      Worker& worker = Choose(request, tried, deadline);
      const absl::StatusOr<v1::Finished> answer = Ask(worker, request, on_event, so_far, cancels, deadline);
      if (!client::WorkerHasGone(answer.status(), /*cancelled=*/CancelsSoFar() != cancels)) return answer;
      if (!(request.session_id().empty() ? !so_far.begun() : request.has_session_turns())) return answer;
      if (attempt == kAttempts) return answer;
      Failed(worker);
      tried.insert(&worker);
      if (tried.size() < workers_.size()) continue;
      tried.clear();  // each once without a pause, then again after growing ones
      TP_RETURN_IF_ERROR(Pause(attempt, cancels, deadline));
    }
  }

  void Cancel() {
    MutexLock lock(&mutex_);
    ++cancels_;
    for (GenerationCall* call : calls_) call->Cancel();
    changed_.SignalAll();
  }

 private:
  struct Worker {
    Worker(const std::string& address, std::shared_ptr<const ChannelSecurity> security)
        : address(address), client(address, std::move(security)) {}
    const std::string address;
    GenerationClient client;
    // Guarded by the mutex of Impl.
    int load = 0;
    int failures = 0;  // in a row
    absl::Time rests_until = absl::InfinitePast();
  };

  uint64_t CancelsSoFar() {
    MutexLock lock(&mutex_);
    return cancels_;
  }

  // It could not be reached: the others are asked first for a while.
  void Failed(Worker& worker) {
    MutexLock lock(&mutex_);
    worker.rests_until = absl::Now() + std::min(kFirstRest * (1 << std::min(worker.failures, 8)), kLongestRest);
    ++worker.failures;
  }

  // In the order in which they are to be tried.
  std::vector<Worker*> InOrder(const std::string& session_id, const std::set<Worker*>& tried) {
    MutexLock lock(&mutex_);
    const absl::Time now = absl::Now();
    std::vector<std::tuple<bool, bool, uint64_t, Worker*>> ranked;
    for (const auto& worker : workers_) {
      ranked.emplace_back(tried.contains(worker.get()), worker->rests_until > now,
                          session_id.empty() ? static_cast<uint64_t>(worker->load)
                                             : ~client::SessionWeight(session_id, worker->address),
                          worker.get());
    }
    if (session_id.empty()) std::shuffle(ranked.begin(), ranked.end(), random_);
    std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
      return std::tie(std::get<0>(a), std::get<1>(a), std::get<2>(a)) <
             std::tie(std::get<0>(b), std::get<1>(b), std::get<2>(b));
    });
    std::vector<Worker*> workers;
    for (const auto& rank : ranked) workers.push_back(std::get<3>(rank));
    return workers;
  }

  static client::Estimates EstimatesOf(const std::vector<Worker*>& workers, const v1::EstimateRequest& question,
                                       absl::Time deadline) {
    std::vector<GenerationClient*> clients;
    for (Worker* worker : workers) clients.push_back(&worker->client);
    struct Result {
      Mutex mutex;
      CondVar changed;
      std::optional<client::Estimates> estimates ABSL_GUARDED_BY(mutex);
    };
    auto result = std::make_shared<Result>();
    client::AskEstimates(clients, question, std::min(deadline, absl::Now() + client::kEstimateTime),
                         [result](client::Estimates estimates) {
                           MutexLock lock(&result->mutex);
                           result->estimates = std::move(estimates);
                           result->changed.SignalAll();
                         });
    MutexLock lock(&result->mutex);
    while (!result->estimates.has_value()) result->changed.Wait(&result->mutex);
    return *std::move(result->estimates);
  }

  // Left unset when nobody knows: then the turn is asked once only.
  template <typename Request>
  void LearnTurns(Request& request, absl::Time deadline) {
    for (Worker* worker : InOrder(request.session_id(), {})) {
      const client::Estimates estimates = EstimatesOf({worker}, QuestionAbout(request), deadline);
      if (estimates[0].ok()) return request.set_session_turns(estimates[0]->session_turns());
      if (!absl::IsUnavailable(estimates[0].status())) return;  // the request itself will be told
      Failed(*worker);
    }
  }

  template <typename Request>
  Worker& Choose(const Request& request, const std::set<Worker*>& tried, absl::Time deadline) {
    const std::vector<Worker*> order = InOrder(request.session_id(), tried);
    std::vector<Worker*> asked;
    std::vector<client::Candidate> candidates;
    {
      MutexLock lock(&mutex_);
      for (Worker* worker : order) {
        if (asked.size() == client::kMostAsked || tried.contains(worker) || worker->rests_until > absl::Now()) break;
        asked.push_back(worker);
        candidates.push_back({absl::UnknownError(""), worker->load});
      }
    }
    if (!request.session_id().empty() || asked.size() < 2) return *order.front();
    client::Estimates estimates = EstimatesOf(asked, QuestionAbout(request), deadline);
    for (size_t i = 0; i < asked.size(); ++i) {
      if (absl::IsUnavailable(estimates[i].status())) Failed(*asked[i]);
      candidates[i].estimate = std::move(estimates[i]);
    }
    const int best = client::FirstTokenFirst(candidates);
    return best < 0 ? *order.front() : *asked[static_cast<size_t>(best)];
  }

  template <typename Request>
  absl::StatusOr<v1::Finished> Ask(Worker& worker, const Request& request, const EventHandler& on_event,
                                   client::AnswerSoFar& so_far, uint64_t cancels, absl::Time deadline) {
    so_far.Restart();
    auto inbox = std::make_shared<Inbox>();
    std::shared_ptr<GenerationCall> call;
    {
      MutexLock lock(&mutex_);
      if (cancels_ != cancels) return absl::CancelledError("cancelled");
      if constexpr (std::is_same_v<Request, v1::ChatRequest>) {
        call = worker.client.StartChat(request, inbox, deadline);
      } else {
        call = worker.client.StartGenerate(request, inbox, deadline);
      }
      calls_.insert(call.get());
      ++worker.load;
    }
    absl::Status refused;
    while (std::optional<v1::GenerateResponse> response = inbox->Take()) {
      if (refused.ok()) refused = Pass(*std::move(response), on_event, so_far);
      refused.ok() ? call->Next() : call->Cancel();
    }
    const absl::StatusOr<v1::Finished> result = inbox->Result();
    MutexLock lock(&mutex_);
    calls_.erase(call.get());
    --worker.load;
    if (result.ok()) worker.failures = 0;
    if (!refused.ok()) return refused;
    return result;
  }

  static absl::Status Pass(v1::GenerateResponse response, const EventHandler& on_event, client::AnswerSoFar& so_far) {
    if (response.has_tokens()) {
      TP_ASSIGN_OR_RETURN(*response.mutable_tokens(), so_far.New(std::move(*response.mutable_tokens())));
      if (response.tokens().ids_size() == 0 && response.tokens().text().empty()) return absl::OkStatus();
    }
    if (on_event) on_event(response);
    return absl::OkStatus();
  }

  absl::Status Pause(int attempt, uint64_t cancels, absl::Time deadline) {
    MutexLock lock(&mutex_);
    const double share = std::uniform_real_distribution<double>(0.5, 1)(random_);
    const absl::Time until = absl::Now() + std::min(kFirstPause * (1 << attempt), kLongestPause) * share;
    if (until > deadline) return absl::DeadlineExceededError("no worker answered in time");
    const auto wake = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(until - absl::Now());
    while (cancels_ == cancels && changed_.WaitUntil(&mutex_, wake)) {
    }
    return cancels_ == cancels ? absl::OkStatus() : absl::CancelledError("cancelled");
  }

  std::vector<std::unique_ptr<Worker>> workers_;
  Mutex mutex_;
  CondVar changed_;
  uint64_t cancels_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<GenerationCall*> calls_ ABSL_GUARDED_BY(mutex_);  // under way
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_){std::random_device()()};
};

RoutedClient::RoutedClient(const std::vector<std::string>& addresses, std::shared_ptr<const ChannelSecurity> security)
    : impl_(std::make_unique<Impl>(addresses, std::move(security))) {}
RoutedClient::~RoutedClient() = default;

absl::StatusOr<v1::Finished> RoutedClient::Generate(v1::GenerateRequest request, const EventHandler& on_event,
                                                    absl::Time deadline) {
  return impl_->Run(std::move(request), on_event, deadline);
}

absl::StatusOr<v1::Finished> RoutedClient::Chat(v1::ChatRequest request, const EventHandler& on_event,
                                                absl::Time deadline) {
  return impl_->Run(std::move(request), on_event, deadline);
}

void RoutedClient::Cancel() { impl_->Cancel(); }

}  // namespace tidepool
