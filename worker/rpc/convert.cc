#include "worker/rpc/convert.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "worker/model/model.h"
#include "worker/rpc/convert_compression.h"

namespace tidepool {
namespace {

absl::StatusOr<std::vector<int32_t>> PromptFrom(const char* field, const std::string& text, bool parse_special,
                                                const Tokenizer& tokenizer) {
  if (text.size() > kMaxPromptBytes) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", text.size(), " bytes, at most ", kMaxPromptBytes));
  }
  return tokenizer.Encode(text, parse_special, /*add_special=*/true);
}

absl::Status CheckRequestId(const std::string& id) {
  if (id.size() <= 128) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("request_id: ", id.size(), " bytes, at most 128"));
}

// Of GenerateRequest and ChatRequest. -1: unset.
// What Generate and Chat have alike.
template <typename Request>
absl::Status CopySettings(const Request& request, GenerationRequest* out) {
  out->sampling = SamplingFrom(request.sampling());
  out->stop = StopFrom(request.stop());
  if (request.has_logprobs()) {
    if (request.logprobs() < 0)
      return absl::InvalidArgumentError(absl::StrCat("logprobs: ", request.logprobs(), " is not in 0 to 20"));
    out->logprobs = request.logprobs();
  }
  out->session_id = request.session_id();
  TP_ASSIGN_OR_RETURN(out->compression, CompressionFrom(request.compression(), !request.session_id().empty()));
  if (request.has_reuse_prefix()) out->reuse_prefix = request.reuse_prefix();
  if (request.has_session_turns()) {
    if (request.session_turns() < 0) {
      return absl::InvalidArgumentError(absl::StrCat("session_turns: ", request.session_turns(), " is not 0 or more"));
    }
    out->session_turns = request.session_turns();
  }
  return absl::OkStatus();
}

}  // namespace

SamplingParams SamplingFrom(const v1::SamplingParams& params) {
  SamplingParams sampling;
  if (params.has_temperature()) sampling.temperature = params.temperature();
  if (params.has_top_k()) sampling.top_k = params.top_k();
  if (params.has_top_p()) sampling.top_p = params.top_p();
  if (params.has_min_p()) sampling.min_p = params.min_p();
  if (params.has_repetition_penalty()) sampling.repetition_penalty = params.repetition_penalty();
  if (params.has_presence_penalty()) sampling.presence_penalty = params.presence_penalty();
  if (params.has_frequency_penalty()) sampling.frequency_penalty = params.frequency_penalty();
  if (params.has_seed()) sampling.seed = params.seed();
  for (const auto& [token, bias] : params.logit_bias()) sampling.logit_bias.emplace_back(token, bias);
  return sampling;
}

StopParams StopFrom(const v1::StopParams& params) {
  StopParams stop;
  if (params.has_max_tokens()) stop.max_tokens = params.max_tokens();
  if (params.has_min_tokens()) stop.min_tokens = params.min_tokens();
  stop.strings.assign(params.strings().begin(), params.strings().end());
  stop.token_ids.assign(params.token_ids().begin(), params.token_ids().end());
  if (params.has_ignore_eos()) stop.ignore_eos = params.ignore_eos();
  return stop;
}

absl::StatusOr<GenerationRequest> RequestFrom(const v1::GenerateRequest& request, const Tokenizer& tokenizer) {
  GenerationRequest out;
  TP_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  out.request_id = request.request_id();
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText: {
      TP_ASSIGN_OR_RETURN(out.prompt, PromptFrom("text", request.text(), request.parse_special(), tokenizer));
      break;
    }
    case v1::GenerateRequest::kTokenIds:
      out.prompt.assign(request.token_ids().ids().begin(), request.token_ids().ids().end());
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      if (request.session_id().empty()) return absl::InvalidArgumentError("prompt: neither text nor token_ids is set");
  }
  TP_RETURN_IF_ERROR(CopySettings(request, &out));
  return out;
}

absl::StatusOr<GenerationRequest> RequestFrom(const v1::ChatRequest& request, const Model& model) {
  GenerationRequest out;
  TP_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  out.request_id = request.request_id();
  TP_ASSIGN_OR_RETURN(const ChatTemplate* chat, model.chat_template());
  std::vector<ChatMessage> messages;
  size_t bytes = 0;
  for (const v1::ChatMessage& message : request.messages()) {
    messages.push_back({message.role(), message.content()});
    bytes += message.content().size();
  }
  if (bytes > kMaxPromptBytes) {
    return absl::InvalidArgumentError(absl::StrCat("messages: ", bytes, " bytes, at most ", kMaxPromptBytes));
  }
  TP_ASSIGN_OR_RETURN(const std::vector<TextSegment> segments,
                      chat->RenderSegments(messages, /*add_generation_prompt=*/true));
  out.prompt = model.tokenizer().EncodeSegments(segments, /*add_special=*/false);
  if (!request.session_id().empty()) {
    // Where the messages cannot follow an answer (a system message, for some templates), the turn is a whole prompt.
    if (const auto continued = chat->ContinueSegments(messages); continued.ok()) {
      out.continuation = model.tokenizer().EncodeSegments(*continued, /*add_special=*/false);
    }
  }
  TP_RETURN_IF_ERROR(CopySettings(request, &out));
  return out;
}

absl::StatusOr<GenerationRequest> RequestFrom(const v1::ScoreRequest& request, const Tokenizer& tokenizer) {
  GenerationRequest out;
  if (request.prompt_case() == v1::ScoreRequest::kText) {
    TP_ASSIGN_OR_RETURN(out.prompt, PromptFrom("text", request.text(), /*parse_special=*/false, tokenizer));
  } else {
    out.prompt.assign(request.token_ids().ids().begin(), request.token_ids().ids().end());
  }
  out.forced_tokens.assign(request.scored().ids().begin(), request.scored().ids().end());
  if (out.forced_tokens.empty()) return absl::InvalidArgumentError("scored: has no tokens, at least 1 is needed");
  out.logprobs = request.has_logprobs() ? request.logprobs() : 0;
  if (out.logprobs < 0)
    return absl::InvalidArgumentError(absl::StrCat("logprobs: ", out.logprobs, " is not in 0 to 20"));
  out.session_id = request.session_id();
  TP_ASSIGN_OR_RETURN(out.compression, CompressionFrom(request.compression(), !request.session_id().empty()));
  return out;
}

v1::Usage UsageTo(const GenerationUsage& from) {
  v1::Usage to;
  to.set_prompt_tokens(from.prompt_tokens);
  to.set_cached_prompt_tokens(from.cached_prompt_tokens);
  to.set_slow_prompt_tokens(from.slow_prompt_tokens);
  to.set_generated_tokens(from.generated_tokens);
  to.set_context_tokens(from.context_tokens);
  to.set_resident_rows(from.resident_rows);
  to.set_evicted_rows(from.evicted_rows);
  to.set_merged_rows(from.merged_rows);
  to.set_recalled_rows(from.recalled_rows);
  to.set_late_rows(from.late_rows);
  to.set_lost_rows(from.lost_rows);
  to.set_recalled_bytes(from.recalled_bytes);
  to.set_offloaded_bytes(from.offloaded_bytes);
  to.set_resident_kv_bytes(from.resident_kv_bytes);
  to.set_peak_kv_bytes(from.peak_kv_bytes);
  to.set_index_bytes(from.index_bytes);
  to.set_staged_bytes(from.staged_bytes);
  to.set_index_on_device(from.index_on_device);
  to.set_full_kv_bytes(from.full_kv_bytes);
  to.set_queue_seconds(from.queue_seconds);
  to.set_time_to_first_token_seconds(from.time_to_first_token_seconds);
  to.set_total_seconds(from.total_seconds);
  to.set_degraded(from.degraded);
  to.set_recomputations(from.recomputations);
  to.set_budget_bytes(from.budget_bytes);
  to.set_budget_exceeded(from.budget_exceeded);
  to.set_decode_peak_kv_bytes(from.decode_peak_kv_bytes);
  return to;
}

void LogprobTo(const TokenLogprob& from, v1::TokenLogprob& to) {
  to.set_token(from.token);
  to.set_logprob(from.logprob);
  for (const auto& [token, logprob] : from.top) {
    v1::TokenLogprob::Alternative& alternative = *to.add_top();
    alternative.set_token(token);
    alternative.set_logprob(logprob);
  }
}

v1::CachePodStats CachePodTo(const CachePodStats& pod) {
  using State = CachePodStats::State;
  v1::CachePodStats to;
  to.set_name(pod.name);
  to.set_address(pod.address);
  switch (pod.state) {
    case State::kConnecting: to.set_state(v1::CachePodStats::STATE_CONNECTING); break;
    case State::kUp: to.set_state(v1::CachePodStats::STATE_UP); break;
    case State::kSlowStart: to.set_state(v1::CachePodStats::STATE_SLOW_START); break;
    case State::kDraining: to.set_state(v1::CachePodStats::STATE_DRAINING); break;
    case State::kLeaving: to.set_state(v1::CachePodStats::STATE_LEAVING); break;
    case State::kDown: to.set_state(v1::CachePodStats::STATE_DOWN); break;
  }
  to.set_weight(pod.weight);
  to.set_offloaded_blocks(pod.offloaded_blocks);
  to.set_offloaded_bytes(pod.offloaded_bytes);
  to.set_recalled_rows(pod.recalled_rows);
  to.set_recalled_bytes(pod.recalled_bytes);
  to.set_fetched_bytes(pod.fetched_bytes);
  to.set_failed_calls(pod.failed_calls);
  to.set_failed_rows(pod.failed_rows);
  to.set_moved_blocks(pod.moved_blocks);
  to.set_downs(pod.downs);
  to.set_reconnects(pod.reconnects);
  return to;
}

v1::Finished FinishedTo(const GenerationResult& result) {
  v1::Finished finished;
  switch (result.reason) {
    case FinishReason::kStop: finished.set_reason(v1::FINISH_REASON_STOP); break;
    case FinishReason::kLength: finished.set_reason(v1::FINISH_REASON_LENGTH); break;
    case FinishReason::kCancelled: finished.set_reason(v1::FINISH_REASON_CANCELLED); break;
    case FinishReason::kDeadline: finished.set_reason(v1::FINISH_REASON_DEADLINE); break;
  }
  finished.set_stop_string(result.stop_string);
  finished.set_session_turns(result.session_turns);
  *finished.mutable_usage() = UsageTo(result.usage);
  return finished;
}

v1::EstimateResponse EstimateTo(const RequestEstimate& estimate) {
  v1::EstimateResponse response;
  response.set_prompt_tokens(estimate.prompt_tokens);
  response.set_stored_tokens(estimate.stored_tokens);
  response.set_session_turns(estimate.session_turns);
  response.set_waiting_tokens(estimate.waiting_tokens);
  if (estimate.prompt_token_seconds > 0) response.set_prompt_tokens_per_second(1 / estimate.prompt_token_seconds);
  response.set_running_sequences(estimate.running_sequences);
  response.set_waiting_requests(estimate.waiting_requests);
  return response;
}

}  // namespace tidepool
