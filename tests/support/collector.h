// A GenerationSink that keeps everything and lets a test wait for the end.
#ifndef TIDEPOOL_TESTS_SUPPORT_COLLECTOR_H_
#define TIDEPOOL_TESTS_SUPPORT_COLLECTOR_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "worker/engine/engine.h"

namespace tidepool::test {

class Collector : public GenerationSink {
 public:
  void OnTokens(TokenDelta delta) override {
    std::function<void(int)> hook;
    int count = 0;
    {
      MutexLock lock(&mutex_);
      tokens_.insert(tokens_.end(), delta.tokens.begin(), delta.tokens.end());
      text_ += delta.text;
      logprobs_.insert(logprobs_.end(), delta.logprobs.begin(), delta.logprobs.end());
      count = static_cast<int>(tokens_.size());
      hook = on_token_;
      changed_.SignalAll();
    }
    if (hook) hook(count);
  }
  void OnFinished(GenerationResult result) override {
    MutexLock lock(&mutex_);
    result_ = std::move(result);
    finished_ = true;
    changed_.SignalAll();
  }
  // Called from the engine's thread after every token, with their number so far.
  void set_on_token(std::function<void(int)> hook) {
    MutexLock lock(&mutex_);
    on_token_ = std::move(hook);
  }
  GenerationResult Wait() {
    MutexLock lock(&mutex_);
    while (!finished_) changed_.Wait(&mutex_);
    return result_;
  }
  std::vector<int32_t> tokens() const {
    MutexLock lock(&mutex_);
    return tokens_;
  }
  std::string text() const {
    MutexLock lock(&mutex_);
    return text_;
  }
  std::vector<TokenLogprob> logprobs() const {
    MutexLock lock(&mutex_);
    return logprobs_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<int32_t> tokens_ ABSL_GUARDED_BY(mutex_);
  std::string text_ ABSL_GUARDED_BY(mutex_);
  std::vector<TokenLogprob> logprobs_ ABSL_GUARDED_BY(mutex_);
  std::function<void(int)> on_token_ ABSL_GUARDED_BY(mutex_);
  GenerationResult result_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

struct Answer {
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<TokenLogprob> logprobs;
  GenerationResult result;
};

// Runs one request to its end. A refused one comes back as its result's status.
inline Answer RunRequest(Engine& engine, GenerationRequest request) {
  auto sink = std::make_shared<Collector>();
  Answer answer;
  if (absl::StatusOr<uint64_t> id = engine.Submit(std::move(request), sink); !id.ok()) {
    answer.result.status = id.status();
    return answer;
  }
  answer.result = sink->Wait();
  answer.tokens = sink->tokens();
  answer.text = sink->text();
  answer.logprobs = sink->logprobs();
  return answer;
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_COLLECTOR_H_
