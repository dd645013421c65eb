#include "worker/engine/generation.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "worker/engine/logprobs.h"

namespace tidepool {

Generation::Generation(uint64_t id, GenerationRequest request, std::shared_ptr<GenerationSink> sink, const Model* model)
    : id_(id),
      request_(std::move(request)),
      sink_(std::move(sink)),
      model_(model),
      sampler_(request_.sampling, model->config().vocabulary),
      stop_(request_.stop, model->tokenizer().end_of_generation()) {
  timeline.arrived = absl::Now();
  usage.prompt_tokens = static_cast<int64_t>(request_.prompt.size());
}

void Generation::Start(std::unique_ptr<Context> context, int64_t cached_prompt_tokens) {
  context_ = std::move(context);
  usage.cached_prompt_tokens = cached_prompt_tokens;
  if (usage.recomputations > 0) return;
  sampler_.Observe(context_->token_ids());
  timeline.started = absl::Now();
  usage.queue_seconds = absl::ToDoubleSeconds(timeline.started - timeline.arrived);
}

void Generation::Restart() {
  ++usage.recomputations;
  usage.degraded = false;
  context_.reset();
  replayed_ = 0;
  recalled_rows_ = 0;
}

bool Generation::Replay() {
  if (replayed_ == generated_.size()) return false;
  context_->AddTokens({generated_[replayed_++]});
  return true;
}

absl::StatusOr<std::optional<FinishReason>> Generation::Next(absl::Span<const float> logits, SamplerScratch& scratch) {
  if (usage.generated_tokens == 0)
    usage.time_to_first_token_seconds = absl::ToDoubleSeconds(absl::Now() - timeline.arrived);
  int32_t token = 0;
  if (forced_ < request_.forced_tokens.size()) {
    token = request_.forced_tokens[forced_++];
    sampler_.Accept(token);
  } else {
    absl::StatusOr<int32_t> sampled =
        sees_best ? sampler_.Sample(best_logits, scratch) : sampler_.Sample(logits, scratch);
    if (!sampled.ok()) return sampled.status();
    token = *sampled;
  }
  ++usage.generated_tokens;
  context_->AddTokens({token});
  generated_.push_back(token);
  replayed_ = generated_.size();

  TokenDelta delta;
  delta.tokens.push_back(token);
  if (request_.logprobs >= 0) delta.logprobs.push_back(LogprobOf(logits, token, request_.logprobs));
  StopCondition::Verdict verdict = stop_.Accept(token, model_->tokenizer().Piece(token));
  delta.text = std::move(verdict.text);
  sink_->OnTokens(std::move(delta));
  switch (verdict.reason) {
    case StopReason::kNone: return std::nullopt;
    case StopReason::kLength: return FinishReason::kLength;
    case StopReason::kToken: return FinishReason::kStop;
    case StopReason::kString: stop_string_ = std::move(verdict.stop_string); return FinishReason::kStop;
  }
  return std::nullopt;
}

void Generation::NoteRecall() {
  const RowRecall* recall = context_->recall();
  if (recall == nullptr || recall->counters().recalled_rows == recalled_rows_) return;
  recalled_rows_ = recall->counters().recalled_rows;
  timeline.last_recall = absl::Now();
  if (timeline.first_recall == absl::InfinitePast()) timeline.first_recall = timeline.last_recall;
}

void Generation::ReportProgress(int64_t prefilled) {
  if (prefilled <= prefilled_) return;  // it is being computed again
  prefilled_ = prefilled;
  sink_->OnProgress(prefilled, usage.prompt_tokens);
}

void Generation::RecordUsage(const Backend& backend, size_t page_bytes) {
  const Context& context = *context_;
  const KvLayout& layout = backend.layout();
  usage.context_tokens = context.computed();
  usage.resident_rows = context.rows().total_rows();
  usage.resident_kv_bytes = context.rows().total_pages() * static_cast<int64_t>(page_bytes);
  usage.peak_kv_bytes = std::max(usage.peak_kv_bytes, context.peak_pages * static_cast<int64_t>(page_bytes));
  usage.decode_peak_kv_bytes =
      std::max(usage.decode_peak_kv_bytes, context.decode_peak_pages * static_cast<int64_t>(page_bytes));
  usage.budget_bytes = BudgetBytes(context.spec(), context.compressor().shape(), context.computed());
  usage.full_kv_bytes = static_cast<int64_t>(layout.token_bytes()) * context.computed();
  usage.offloaded_bytes = context.log().stored_bytes();
  const CompressionCounters& compression = context.compressor().counters();
  usage.evicted_rows = compression.evicted_rows;
  usage.merged_rows = compression.merged_rows;
  usage.budget_exceeded = compression.over_budget;
  if (const RowRecall* recall = context.recall(); recall != nullptr) {
    usage.recalled_rows = recall->counters().recalled_rows;
    usage.recalled_bytes = recall->counters().recalled_bytes;
    usage.late_rows = recall->counters().late_rows;
    usage.lost_rows = recall->counters().lost_rows;
    usage.index_bytes = recall->index_bytes();
    usage.staged_bytes = recall->staged_bytes();
    usage.index_on_device = context.spec().recall.placement == IndexPlacement::kDevice;
    usage.degraded = usage.lost_rows > 0;
  }
}

void Generation::Finish(absl::Status status, FinishReason reason) {
  if (sink_ == nullptr) return;
  phase = Phase::kDone;
  if (std::string rest = stop_.Finish(); !rest.empty()) {
    TokenDelta delta;
    delta.text = std::move(rest);
    sink_->OnTokens(std::move(delta));
  }
  timeline.ended = absl::Now();
  usage.total_seconds = absl::ToDoubleSeconds(timeline.ended - timeline.arrived);
  GenerationResult result;
  result.status = std::move(status);
  result.reason = reason;
  result.stop_string = stop_string_;
  result.usage = usage;
  result.session_turns = session_turns;
  result.timeline = timeline;
  result.preset = request_.compression.preset;
  sink_->OnFinished(std::move(result));
  sink_.reset();
}

}  // namespace tidepool
