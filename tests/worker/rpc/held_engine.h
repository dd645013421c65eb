// An engine whose answers stop at a chosen token until they are cancelled, so that a test need not race with a fast
// model.
#ifndef TIDEPOOL_TESTS_WORKER_RPC_HELD_ENGINE_H_
#define TIDEPOOL_TESTS_WORKER_RPC_HELD_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "worker/engine/engine.h"

namespace tidepool::test {

// Passes everything on to `engine`. While held, the engine thread itself waits in the sink once `held_at` tokens of an
// answer are there, until Cancel has been passed on or Release is called.
class HeldEngine : public Engine {
 public:
  explicit HeldEngine(Engine* engine) : engine_(engine) {}

  void Hold(int held_at) {
    MutexLock lock(&mutex_);
    held_at_ = held_at;
  }
  void Release() {
    MutexLock lock(&mutex_);
    held_at_ = -1;
    changed_.SignalAll();
  }
  // Waits until so many requests have been submitted since the engine was made.
  void WaitForSubmitted(int requests) {
    MutexLock lock(&mutex_);
    while (submitted_ < requests) changed_.Wait(&mutex_);
  }
  // Waits until so many answers have been finished since the engine was made.
  void WaitForFinished(int answers) {
    MutexLock lock(&mutex_);
    while (finished_ < answers) changed_.Wait(&mutex_);
  }

  absl::StatusOr<uint64_t> Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) override {
    absl::StatusOr<uint64_t> id = engine_->Submit(std::move(request), std::make_shared<Sink>(this, std::move(sink)));
    MutexLock lock(&mutex_);
    ++submitted_;
    changed_.SignalAll();
    return id;
  }
  void Cancel(uint64_t request) override {
    engine_->Cancel(request);
    Release();
  }
  void EndSession(SessionName session, std::function<void(absl::Status)> done) override {
    engine_->EndSession(std::move(session), std::move(done));
  }
  void Estimate(GenerationRequest request, std::function<void(absl::StatusOr<RequestEstimate>)> done) override {
    engine_->Estimate(std::move(request), std::move(done));
  }
  EngineStats Stats() const override { return engine_->Stats(); }
  absl::StatusOr<PromptKeys> KeysOf(const GenerationRequest& request) const override {
    return engine_->KeysOf(request);
  }
  EnginePicture Picture() override { return engine_->Picture(); }
  const Model& model() const override { return engine_->model(); }

 private:
  class Sink : public GenerationSink {
   public:
    Sink(HeldEngine* owner, std::shared_ptr<GenerationSink> next) : owner_(owner), next_(std::move(next)) {}
    void OnProgress(int64_t prefilled_tokens, int64_t prompt_tokens) override {
      next_->OnProgress(prefilled_tokens, prompt_tokens);
    }
    void OnTokens(TokenDelta delta) override {
      tokens_ += static_cast<int>(delta.tokens.size());
      next_->OnTokens(std::move(delta));
      MutexLock lock(&owner_->mutex_);
      while (owner_->held_at_ >= 0 && tokens_ >= owner_->held_at_) owner_->changed_.Wait(&owner_->mutex_);
    }
    void OnFinished(GenerationResult result) override {
      next_->OnFinished(std::move(result));
      MutexLock lock(&owner_->mutex_);
      ++owner_->finished_;
      owner_->changed_.SignalAll();
    }

   private:
    HeldEngine* const owner_;
    const std::shared_ptr<GenerationSink> next_;
    int tokens_ = 0;
  };

  Engine* const engine_;
  Mutex mutex_;
  CondVar changed_;
  int held_at_ ABSL_GUARDED_BY(mutex_) = -1;
  int submitted_ ABSL_GUARDED_BY(mutex_) = 0;
  int finished_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_WORKER_RPC_HELD_ENGINE_H_
