// One request to /v1/completions or /v1/chat/completions under way: a call to a worker for each choice, whose responses
// become the answer of an exchange. The next response of a call is asked for when the events of the one before are with
// the kernel, so a client that reads slowly costs one response for each choice, and holds up nobody else. When the
// client goes, its calls are cancelled. When a worker goes, another one is asked what it had not begun, and a session's
// turn, which goes on where it was.
#ifndef TIDEPOOL_CLIENT_HTTP_RUNNING_ANSWER_H_
#define TIDEPOOL_CLIENT_HTTP_RUNNING_ANSWER_H_

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/answer_so_far.h"
#include "client/http/http_service.h"
#include "client/http/openai_answer.h"
#include "client/http/openai_request.h"
#include "client/http/worker_pool.h"

namespace tidepool::http {

// How an answer ended, for logs and counters.
struct AnswerEnd {
  int status = 200;  // 499: the client had gone
  std::string worker;
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
};

class RunningAnswer : public std::enable_shared_from_this<RunningAnswer> {
 public:
  struct Options {
    std::string id;
    std::string tenant;
    int64_t created_unix_seconds = 0;
    absl::Time deadline;
    std::string traceparent;                       // valid, or empty: passed on to the workers
    std::function<void(const AnswerEnd&)> on_end;  // once
  };

  // Holds itself until it has ended. The pool outlives it.
  static void Start(OpenAiRequest request, std::shared_ptr<HttpExchange> exchange, WorkerPool* pool, Options options);

 private:
  class Reader;
  struct Choice {
    WorkerPool::Lease worker;
    std::shared_ptr<GenerationCall> call;
    std::set<std::string> tried;  // workers
    absl::Status left;            // what the last of them ended with, when the next one is looked for
    int64_t session_turns = -1;   // before this one; -1: not known, or no session
    client::AnswerSoFar so_far;
    bool ended = false;
  };

  RunningAnswer(OpenAiRequest request, std::shared_ptr<HttpExchange> exchange, WorkerPool* pool, Options options);
  void Begin();
  // Looks for a worker that has not been tried.
  void StartChoice(int index);
  void OnRoute(int index, absl::StatusOr<WorkerPool::Route> route);
  void OnResponse(int index, v1::GenerateResponse response);
  void OnDone(int index, absl::StatusOr<v1::Finished> result);
  // Whether another worker is to be asked, since this choice's has gone.
  bool AskAgain(int index, const absl::Status& status);
  void OnGone();
  void Fail(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(int status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CancelAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const OpenAiRequest request_;
  const std::shared_ptr<HttpExchange> exchange_;
  WorkerPool* const pool_;
  const Options options_;
  Mutex mutex_;
  std::unique_ptr<OpenAiAnswer> answer_ ABSL_GUARDED_BY(mutex_);  // from the first worker's choice on
  std::vector<Choice> choices_ ABSL_GUARDED_BY(mutex_);
  int left_ ABSL_GUARDED_BY(mutex_);  // choices that have not ended
  bool streaming_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;  // nothing more is said
  AnswerEnd end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_RUNNING_ANSWER_H_
