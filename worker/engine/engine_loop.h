// The engine's thread: admission, batching, steps, and the ends of requests.
#ifndef TIDEPOOL_WORKER_ENGINE_ENGINE_LOOP_H_
#define TIDEPOOL_WORKER_ENGINE_ENGINE_LOOP_H_

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/background.h"
#include "base/mutex.h"
#include "worker/backend/backend.h"
#include "worker/engine/context_loader.h"
#include "worker/engine/engine.h"
#include "worker/engine/engine_meter.h"
#include "worker/engine/generation.h"
#include "worker/engine/load_cost.h"
#include "worker/engine/sampler.h"
#include "worker/engine/step_pace.h"
#include "worker/kv/batch_recall.h"

namespace tidepool {

class EngineLoop : public Engine {
 public:
  EngineLoop(EngineOptions options, std::shared_ptr<const Model> model, std::unique_ptr<Backend> backend,
             BlockCache* cache, ManifestStore* manifests);
  // Ends all requests as cancelled.
  ~EngineLoop() override;

  absl::StatusOr<uint64_t> Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) override;
  void Cancel(uint64_t request) override;
  void EndSession(SessionName session, std::function<void(absl::Status)> done) override;
  void Estimate(GenerationRequest request, std::function<void(absl::StatusOr<RequestEstimate>)> done) override;
  EngineStats Stats() const override;
  absl::StatusOr<PromptKeys> KeysOf(const GenerationRequest& request) const override;
  EnginePicture Picture() override;
  const Model& model() const override { return *model_; }

 private:
  absl::Status Validate(GenerationRequest& request) const;
  // Asks the cache: not on the engine thread.
  absl::StatusOr<RequestEstimate> EstimateNow(const GenerationRequest& request);
  static absl::Status ValidateSessionId(const std::string& session_id);
  ContextLoader Loader(const std::string& tenant);
  std::string SaltOf(const std::string& tenant) const;
  static SessionName NameOf(const GenerationRequest& request) { return {request.session_id, request.tenant}; }

  // All below run on the engine thread.
  void Loop();
  void TakeInbox();
  void EndCancelledAndLate();
  void StartLoads();
  // Loads the session's state in the background. `resident`: the revision of the context that the worker holds, or -1.
  void LoadSession(const Generation& generation, int64_t resident);
  void OnLoaded(uint64_t id, LoadedContext loaded);
  void AdmitLoaded();
  int64_t PagesNeeded(const Generation& generation) const;
  // The idle context of the session, taken out of idle_; null when there is none.
  std::unique_ptr<Context> TakeIdle(const SessionName& session);
  // Frees pages of idle sessions until `pages` are free of reservations; false, and nothing freed, when that is not
  // enough.
  bool MakeRoom(int64_t pages);
  bool Step();
  void AfterStep(Generation& generation, absl::Span<const float> logits, int32_t tokens);
  void End(Generation& generation, absl::Status status, FinishReason reason);
  void StoreFinished();
  void EndSessions();
  // Rows that it cannot do without are lost: its context is computed again, or, after some times, it fails with `lost`.
  void Recompute(Generation& generation, const absl::Status& lost);
  void Close(Generation& generation, absl::Status status, FinishReason reason);
  void Post(std::function<void()> job);
  void LeaveQueue(Generation& generation);
  void PublishStats();
  // For who has asked for one since the last.
  void TakePicture();
  Generation* Find(uint64_t id);
  ContextOptions MakeContextOptions(const GenerationRequest& request, std::string nonce) const;

  const EngineOptions options_;
  const std::shared_ptr<const Model> model_;
  const std::vector<TokenClass> token_classes_;  // by token id
  const RepetitionWords repetition_words_;
  const std::unique_ptr<Backend> backend_;
  const std::shared_ptr<ChunkMemory> staging_;  // of what all sequences recall
  BlockCache* const cache_;
  ManifestStore* const manifests_;

  mutable Mutex mutex_;
  CondVar wake_;
  std::vector<std::unique_ptr<Generation>> incoming_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> cancels_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  int64_t queued_ ABSL_GUARDED_BY(mutex_) = 0;          // submitted and not admitted
  int64_t ends_under_way_ ABSL_GUARDED_BY(mutex_) = 0;  // EndSession asked for and not answered
  int64_t rejected_ ABSL_GUARDED_BY(mutex_) = 0;        // since the start: the queue was full
  int64_t estimates_ ABSL_GUARDED_BY(mutex_) = 0;       // under way
  EngineStats stats_ ABSL_GUARDED_BY(mutex_);
  bool picture_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  EnginePicture picture_ ABSL_GUARDED_BY(mutex_);

  // Engine thread only.
  struct SessionEnd {
    SessionName session;
    std::function<void(absl::Status)> done;
  };
  EngineStats counted_;
  EngineMeter meter_{&counted_};
  std::deque<std::unique_ptr<Generation>> waiting_;
  std::list<std::unique_ptr<Generation>> active_;  // in order of arrival
  absl::flat_hash_map<uint64_t, LoadedContext> loaded_;
  absl::flat_hash_set<SessionName> busy_sessions_;
  std::list<std::unique_ptr<Context>> idle_;  // sessions that stay resident while pages allow, the least recent first
  std::vector<SessionEnd> session_ends_;      // asked for, waiting for the turn under way
  int64_t reserved_pages_ = 0;                // of active generations
  std::vector<float> logits_;
  SamplerScratch scratch_;
  StepPace pace_;
  LoadCost load_cost_;  // loads use it, too
  BatchRecall recall_;

  std::unique_ptr<Background> background_;  // loads
  std::unique_ptr<Background> writer_;      // manifests: what is answered already does not wait for loads
  std::thread thread_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_ENGINE_LOOP_H_
