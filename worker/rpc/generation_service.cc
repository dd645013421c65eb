#include "worker/rpc/generation_service.h"

#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "policies/retain/score_method.h"
#include "security/rate_limiter.h"
#include "tidepool/v1/generation.grpc.pb.h"
#include "worker/model/model.h"
#include "worker/rpc/convert.h"
#include "worker/rpc/generation_stream.h"
#include "worker/rpc/request_tracer.h"
#include "worker/rpc/score_call.h"
#include "worker/rpc/status_details.h"

namespace tidepool {
namespace {

template <typename Request>
void SetDeadline(grpc::CallbackServerContext* call, Request& request) {
  if (!request.ok()) return;
  // An infinite deadline comes as the largest time point there is.
  if (call->deadline() < std::chrono::system_clock::time_point::max())
    request->deadline = absl::FromChrono(call->deadline());
}

class GenerationService final : public v1::Generation::CallbackService {
 public:
  GenerationService(Engine* engine, OpenStreams* open, std::shared_ptr<const ServerSecurity> security,
                    NamedPolicies policies, const RequestTracer* tracer)
      : engine_(engine),
        open_(open),
        tracer_(tracer),
        policies_(std::move(policies)),
        security_(std::move(security)),
        rates_(std::make_shared<RateLimiter>(
            [security = security_](std::string_view tenant) { return security->access()->LimitsOf(tenant); })) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* call,
                                                           const v1::GenerateRequest* request) override {
    auto trace = tracer_ != nullptr ? tracer_->Begin(*call, *request) : nullptr;
    absl::StatusOr<GenerationRequest> converted = Admitted(call, *request, engine_->model().tokenizer());
    auto charge = ChargeFor(converted);
    return new GenerationStream(engine_, open_, std::move(converted), std::move(charge), std::move(trace));
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Chat(grpc::CallbackServerContext* call,
                                                       const v1::ChatRequest* request) override {
    auto trace = tracer_ != nullptr ? tracer_->Begin(*call, *request) : nullptr;
    absl::StatusOr<GenerationRequest> converted = Admitted(call, *request, engine_->model());
    auto charge = ChargeFor(converted);
    return new GenerationStream(engine_, open_, std::move(converted), std::move(charge), std::move(trace));
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    if (request->text().size() > kMaxPromptBytes) {
      return Done(call, absl::InvalidArgumentError(
                            absl::StrCat("text: ", request->text().size(), " bytes, at most ", kMaxPromptBytes)));
    }
    const std::vector<int32_t> ids =
        engine_->model().tokenizer().Encode(request->text(), request->parse_special(), request->add_special());
    response->mutable_ids()->Assign(ids.begin(), ids.end());
    return Done(call, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* call, const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    const Tokenizer& tokenizer = engine_->model().tokenizer();
    for (int i = 0; i < request->ids_size(); ++i) {
      if (request->ids(i) < 0 || request->ids(i) >= tokenizer.vocabulary()) {
        return Done(call, absl::InvalidArgumentError(absl::StrCat("ids[", i, "]: ", request->ids(i), " is not in 0 to ",
                                                                  tokenizer.vocabulary() - 1)));
      }
      const auto piece = tokenizer.Piece(request->ids(i), request->render_special());
      response->mutable_text()->append(piece);
      response->add_lengths(static_cast<int32_t>(piece.size()));
    }
    return Done(call, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* call, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override {
    return new ScoreCall(engine_, Admitted(call, *request, engine_->model().tokenizer()), response);
  }

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* call, const v1::GetModelRequest*,
                                     v1::GetModelResponse* response) override {
    const Model& model = engine_->model();
    const ModelConfig& config = model.config();
    response->set_name(config.name);
    response->set_architecture(config.architecture);
    response->set_fingerprint(model.fingerprint());
    response->set_layers(config.layers);
    response->set_width(config.width);
    response->set_heads(config.heads);
    response->set_kv_heads(config.kv_heads);
    response->set_head_dim(config.head_dim);
    response->set_vocabulary(config.vocabulary);
    response->set_context_tokens(config.context_tokens);
    if (absl::StatusOr<const ChatTemplate*> chat = model.chat_template(); chat.ok()) {
      response->set_chat_template(std::string((*chat)->name()));
    }
    return Done(call, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* ListPolicies(grpc::CallbackServerContext* call, const v1::ListPoliciesRequest*,
                                         v1::ListPoliciesResponse* response) override {
    for (std::string_view name : PresetNames()) {
      v1::ListPoliciesResponse::Policy& policy = *response->add_policies();
      policy.set_name(std::string(name));
      policy.set_summary(std::string(PresetSummary(name)));
    }
    for (const auto& [name, named] : policies_.policies()) {
      v1::ListPoliciesResponse::Policy& policy = *response->add_policies();
      policy.set_name(name);
      policy.set_summary(named.summary());
    }
    for (const ScoreMethod* score : AllScores()) response->add_scores(std::string(score->name()));
    return Done(call, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* GetWorkerStats(grpc::CallbackServerContext* call, const v1::GetWorkerStatsRequest*,
                                           v1::GetWorkerStatsResponse* response) override {
    const EngineStats stats = engine_->Stats();
    response->set_running_sequences(stats.running_sequences);
    response->set_waiting_requests(stats.waiting_requests);
    response->set_total_pages(stats.total_pages);
    response->set_used_pages(stats.used_pages);
    response->set_page_bytes(stats.page_bytes);
    response->set_requests_finished(stats.requests_finished());
    response->set_requests_cancelled(stats.requests_cancelled());
    response->set_requests_failed(stats.requests_failed);
    response->set_prompt_tokens(stats.prompt_tokens);
    response->set_cached_prompt_tokens(stats.cached_prompt_tokens());
    response->set_generated_tokens(stats.generated_tokens);
    response->set_evicted_rows(stats.evicted_rows);
    response->set_merged_rows(stats.merged_rows);
    response->set_recalled_rows(stats.recalled_rows);
    response->set_late_rows(stats.late_rows);
    response->set_lost_rows(stats.lost_rows);
    response->set_steps(stats.steps);
    response->set_offloaded_blocks(stats.cache.offloaded_blocks);
    response->set_offloaded_bytes(stats.cache.offloaded_bytes);
    response->set_offload_failures(stats.cache.offload_failures);
    response->set_cache_reconnects(stats.cache.reconnects);
    for (const CachePodStats& pod : stats.cache.pods) *response->add_cache_pods() = CachePodTo(pod);
    response->set_degraded_blocks(stats.cache.degraded_blocks);
    response->set_degraded_manifests(stats.cache.degraded_manifests);
    response->set_repaired_manifests(stats.cache.repaired_manifests);
    return Done(call, absl::OkStatus());
  }

  // Not counted for the tenant's rate: the request itself is.
  grpc::ServerUnaryReactor* Estimate(grpc::CallbackServerContext* call, const v1::EstimateRequest* request,
                                     v1::EstimateResponse* response) override {
    absl::StatusOr<GenerationRequest> converted = GenerationRequest();
    if (request->has_generate()) converted = Converted(request->generate(), engine_->model().tokenizer());
    if (request->has_chat()) converted = Converted(request->chat(), engine_->model());
    SetDeadline(call, converted);
    const absl::StatusOr<std::string> tenant = TenantOf(call);
    if (!tenant.ok()) return Done(call, tenant.status());
    if (!converted.ok()) return Done(call, converted.status());
    converted->tenant = *tenant;
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    engine_->Estimate(*std::move(converted), [reactor, response](const absl::StatusOr<RequestEstimate>& estimate) {
      if (estimate.ok()) *response = EstimateTo(*estimate);
      reactor->Finish(GenerationStatus(estimate.status()));
    });
    return reactor;
  }

  grpc::ServerUnaryReactor* EndSession(grpc::CallbackServerContext* call, const v1::EndSessionRequest* request,
                                       v1::EndSessionResponse*) override {
    const absl::StatusOr<std::string> tenant = TenantOf(call);
    if (!tenant.ok()) return Done(call, tenant.status());
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    engine_->EndSession({request->session_id(), *tenant},
                        [reactor](const absl::Status& status) { reactor->Finish(GenerationStatus(status)); });
    return reactor;
  }

  grpc::ServerUnaryReactor* ListBlockKeys(grpc::CallbackServerContext* call, const v1::ListBlockKeysRequest* request,
                                          v1::ListBlockKeysResponse* response) override {
    v1::GenerateRequest meant;
    if (request->has_token_ids()) {
      *meant.mutable_token_ids() = request->token_ids();
    } else {
      meant.set_text(request->text());
    }
    *meant.mutable_compression() = request->compression();
    absl::StatusOr<GenerationRequest> converted = Admitted(call, meant, engine_->model().tokenizer());
    if (!converted.ok()) return Done(call, converted.status());
    const absl::StatusOr<Engine::PromptKeys> keys = engine_->KeysOf(*converted);
    if (!keys.ok()) return Done(call, keys.status());
    response->mutable_token_ids()->Assign(converted->prompt.begin(), converted->prompt.end());
    for (const BlockKey& key : keys->keys) response->add_keys(std::string(key.AsString()));
    response->set_block_tokens(kBlockTokens);
    response->set_layers(engine_->model().config().layers);
    response->set_model_fingerprint(engine_->model().fingerprint());
    response->set_tenant(keys->tenant);
    response->set_usable_blocks(keys->usable_blocks);
    response->set_compute_bytes_per_second(static_cast<uint64_t>(keys->cost.compute_bytes_per_second));
    response->set_compute_seconds(keys->cost.compute_seconds);
    response->set_load_seconds(keys->cost.load_seconds);
    response->set_loads(keys->cost.loads);
    return Done(call, absl::OkStatus());
  }

 private:
  static grpc::ServerUnaryReactor* Done(grpc::CallbackServerContext* call, const absl::Status& status) {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    reactor->Finish(GenerationStatus(status));
    return reactor;
  }

  // Whose sessions and blocks a call is about. Empty: the worker's own tenant's.
  absl::StatusOr<std::string> TenantOf(grpc::CallbackServerContext* call) const {
    TP_ASSIGN_OR_RETURN(const Caller caller, security_->CallerOf(*call));
    return caller.all_tenants() ? "" : caller.tenant;
  }

  // The request as the engine takes it; or why it does not come that far. It counts for its tenant's rate whatever
  // comes of it, so that nobody keeps the worker busy with what it refuses.
  template <typename Request, typename Source>
  absl::StatusOr<GenerationRequest> Admitted(grpc::CallbackServerContext* call, const Request& request,
                                             const Source& source) {
    TP_ASSIGN_OR_RETURN(const std::string tenant, TenantOf(call));
    if (!tenant.empty()) {  // whoever may do everything has no rate
      if (const std::optional<RateRefusal> refusal = rates_->Admit(tenant); refusal.has_value()) {
        absl::Status status = absl::ResourceExhaustedError(refusal->message);
        SetRetryAfter(refusal->retry_after, &status);
        return status;
      }
    }
    absl::StatusOr<GenerationRequest> converted = Converted(request, source);
    SetDeadline(call, converted);
    if (converted.ok()) converted->tenant = tenant;
    return converted;
  }

  // Counts generated tokens for the request's tenant.
  std::function<void(int64_t)> ChargeFor(const absl::StatusOr<GenerationRequest>& request) const {
    return [rates = rates_, tenant = request.ok() ? request->tenant : std::string()](int64_t tokens) {
      if (!tenant.empty()) rates->Charge(tenant, tokens);
    };
  }

  // source: what RequestFrom needs besides.
  template <typename Request, typename Source>
  absl::StatusOr<GenerationRequest> Converted(const Request& request, const Source& source) const {
    if (!policies_.Knows(request.compression())) return RequestFrom(request, source);
    Request resolved = request;
    policies_.Apply(*resolved.mutable_compression());
    return RequestFrom(resolved, source);
  }

  Engine* const engine_;
  OpenStreams* const open_;
  const RequestTracer* const tracer_;
  const NamedPolicies policies_;
  const std::shared_ptr<const ServerSecurity> security_;
  const std::shared_ptr<RateLimiter> rates_;  // shared with requests under way
};

}  // namespace

std::unique_ptr<grpc::Service> MakeGenerationService(Engine* engine, OpenStreams* open,
                                                     std::shared_ptr<const ServerSecurity> security,
                                                     NamedPolicies policies, const RequestTracer* tracer) {
  return std::make_unique<GenerationService>(engine, open, std::move(security), std::move(policies), tracer);
}

}  // namespace tidepool
