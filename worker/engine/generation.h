// One request while the engine works on it: draws its tokens, cuts its text, counts what it used and answers its sink.
#ifndef TIDEPOOL_WORKER_ENGINE_GENERATION_H_
#define TIDEPOOL_WORKER_ENGINE_GENERATION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/engine/context.h"
#include "worker/engine/engine.h"
#include "worker/engine/sampler.h"
#include "worker/engine/stop_condition.h"
#include "worker/model/model.h"

namespace tidepool {

class Generation {
 public:
  enum class Phase { kWaiting, kLoading, kLoaded, kPrefill, kDecode, kStoring, kDone };

  Generation(uint64_t id, GenerationRequest request, std::shared_ptr<GenerationSink> sink, const Model* model);

  uint64_t id() const { return id_; }
  const GenerationRequest& request() const { return request_; }
  GenerationRequest& mutable_request() { return request_; }

  // The prompt has been joined to its context: counts begin. `context` outlives the generation or is taken out of it.
  void Start(std::unique_ptr<Context> context, int64_t cached_prompt_tokens);
  // Its context is lost and will be computed again: Start is called once more, and what has been answered is not
  // answered again.
  void Restart();
  // While tokens that have been answered are not part of the context again: adds the next one, in place of Next.
  bool Replay();
  // So many of the best logits suffice for Next; 0: it needs all of them.
  int best_needed() const {
    if (request_.logprobs >= 0) return 0;
    return forced_ < request_.forced_tokens.size() ? 1 : sampler_.best_needed();
  }
  Context* context() { return context_.get(); }
  std::unique_ptr<Context> TakeContext() { return std::move(context_); }

  // Logits after the last token of the context: chooses the next token (or takes the forced one), adds it to the
  // context and reports it. The reason when it was the last one; Internal when the logits are no numbers.
  absl::StatusOr<std::optional<FinishReason>> Next(absl::Span<const float> logits, SamplerScratch& scratch);
  // Whether no token is wanted at all.
  bool nothing_to_generate() const { return request_.stop.max_tokens == 0; }

  void ReportProgress(int64_t prefilled);
  // After a step: notes when rows were recalled in it.
  void NoteRecall();
  // Rows and bytes as they are now; while the context is still there.
  void RecordUsage(const Backend& backend, size_t page_bytes);
  // Ends the request: flushes held-back text, then OnFinished. Once.
  void Finish(absl::Status status, FinishReason reason);

  Phase phase = Phase::kWaiting;
  bool sees_best = false;               // Next goes by best_logits
  std::vector<TokenLogit> best_logits;  // of the last step
  bool queued = true;                   // counts against the bound of the queue until admitted
  bool cancelled = false;
  bool storing_manifest = false;
  absl::Time rests_until = absl::InfinitePast();  // while it waits to be computed again
  int64_t session_turns = 0;                      // once this one is stored
  std::optional<FinishReason> finish_reason;      // set while phase is kStoring
  int64_t reserved_pages = 0;
  int64_t need_pages = 0;
  GenerationUsage usage;
  std::vector<float> prompt_logits;  // of the last token, while the prompt is repeated
  int policy_index = -1;             // in EngineStats::policies, once admitted
  RequestTimeline timeline;

 private:
  const uint64_t id_;
  GenerationRequest request_;
  std::shared_ptr<GenerationSink> sink_;
  const Model* const model_;
  std::unique_ptr<Context> context_;
  Sampler sampler_;
  StopCondition stop_;
  std::string stop_string_;
  size_t forced_ = 0;
  std::vector<int32_t> generated_;
  size_t replayed_ = 0;        // of them; all, unless the context is being computed again
  int64_t prefilled_ = 0;      // reported
  int64_t recalled_rows_ = 0;  // when NoteRecall looked last
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_GENERATION_H_
