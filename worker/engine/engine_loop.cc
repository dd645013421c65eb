#include "worker/engine/engine_loop.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/kv/observed_step.h"
#include "worker/model/token_classes.h"

namespace tidepool {
namespace {

// In the words of KVzip's authors. They add the end of a chat template's turn where the model has one; a prompt here
// has its own markers already.
RepetitionWords WordsOf(const Tokenizer& tokenizer) {
  auto tokens = [&](const char* text) {
    return tokenizer.Encode(text, /*parse_special=*/false, /*add_special=*/false);
  };
  return {.first = tokens("\n\nRepeat the previous context exactly."),
          .next = tokens("\n\nRepeat the part of the previous context exactly, starting with"),
          .end = tokens("\n")};
}

}  // namespace

EngineLoop::EngineLoop(EngineOptions options, std::shared_ptr<const Model> model, std::unique_ptr<Backend> backend,
                       BlockCache* cache, ManifestStore* manifests)
    : options_(std::move(options)),
      model_(std::move(model)),
      token_classes_(ClassesOfVocabulary(model_->tokenizer())),
      repetition_words_(WordsOf(model_->tokenizer())),
      backend_(std::move(backend)),
      staging_(std::make_shared<ChunkMemory>(RowStaging::ChunkBytes(backend_->layout().row_bytes()))),
      cache_(cache),
      manifests_(manifests),
      pace_(options_.decode_pace, options_.prefill_chunk_tokens),
      load_cost_(options_.weigh_prefixes, backend_->layout().token_bytes(), std::random_device{}()),
      recall_(backend_.get(), cache, model_->config().heads, options_.recall_deadline),
      background_(std::make_unique<Background>(2)),
      writer_(std::make_unique<Background>(2)),
      thread_([this] { Loop(); }) {}

EngineLoop::~EngineLoop() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    woken_ = true;
    wake_.SignalAll();
  }
  thread_.join();
  background_.reset();  // their last jobs post to an inbox that nobody reads any more
  writer_.reset();
}

absl::Status EngineLoop::Validate(GenerationRequest& request) const {
  const ModelConfig& config = model_->config();
  auto bad = [](auto&&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  TP_RETURN_IF_ERROR(ValidateSampling(request.sampling, config.vocabulary));
  if (!request.forced_tokens.empty()) {
    request.stop = StopParams();
    request.stop.max_tokens = static_cast<int>(request.forced_tokens.size());
    request.stop.ignore_eos = true;
  }
  TP_RETURN_IF_ERROR(ValidateStop(request.stop, config.vocabulary));
  auto check_tokens = [&](const char* field, const std::vector<int32_t>& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < 0 || tokens[i] >= config.vocabulary) {
        return bad(field, "[", i, "]: ", tokens[i], " is not in 0 to ", config.vocabulary - 1);
      }
    }
    return absl::OkStatus();
  };
  TP_RETURN_IF_ERROR(check_tokens("prompt", request.prompt));
  TP_RETURN_IF_ERROR(check_tokens("continuation", request.continuation));
  TP_RETURN_IF_ERROR(check_tokens("forced_tokens", request.forced_tokens));
  if (request.prompt.empty() && request.session_id.empty()) return bad("prompt: has no tokens, at least 1 is needed");
  if (static_cast<int64_t>(request.prompt.size() + request.forced_tokens.size()) > config.context_tokens) {
    return bad("prompt: ", request.prompt.size() + request.forced_tokens.size(), " tokens, the model's context holds ",
               config.context_tokens);
  }
  if (request.logprobs < -1 || request.logprobs > kMaxLogprobs) {
    return bad("logprobs: ", request.logprobs, " is not in -1 to ", kMaxLogprobs);
  }
  if (request.tenant.empty()) request.tenant = options_.tenant;
  if (request.tenant.size() > kMaxTenantBytes) {
    return bad("tenant: ", request.tenant.size(), " bytes, at most ", kMaxTenantBytes);
  }
  TP_RETURN_IF_ERROR(ValidateSessionId(request.session_id));
  if (request.session_turns >= 0 && request.session_id.empty()) return bad("session_turns: is set without session_id");
  if (!request.session_id.empty() && (cache_ == nullptr || manifests_ == nullptr)) {
    return absl::FailedPreconditionError("session_id: this worker has no cache service (start it with --cache)");
  }
  if (request.session_id.empty() || !request.compression.preset.empty()) {
    TP_RETURN_IF_ERROR(ValidateCompression(request.compression));
    auto check_layers = [&](const char* field, const std::vector<int>& layers) {
      for (int layer : layers) {
        if (layer >= config.layers) {
          return bad("compression.", field, ": ", layer, " is not in 0 to ", config.layers - 1, ", the model's layers");
        }
      }
      return absl::OkStatus();
    };
    TP_RETURN_IF_ERROR(check_layers("dense_layers", request.compression.dense_layers));
    TP_RETURN_IF_ERROR(check_layers("lazy_layers", request.compression.lazy_layers));
    TP_RETURN_IF_ERROR(check_layers("recall.filter_layers", request.compression.recall.filter_layers));
    if (request.compression.recall.mode != RecallMode::kOff && cache_ == nullptr) {
      return absl::FailedPreconditionError(
          "compression.recall.mode: this worker has no cache service to recall from (start it with --cache)");
    }
  }
  return absl::OkStatus();
}

absl::Status EngineLoop::ValidateSessionId(const std::string& session_id) {
  if (session_id.size() > kMaxSessionIdBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("session_id: ", session_id.size(), " bytes, at most ", kMaxSessionIdBytes));
  }
  for (unsigned char c : session_id) {
    if (c < 0x21 || c > 0x7e) {
      return absl::InvalidArgumentError(
          absl::StrCat("session_id: holds byte ", int{c}, ", only visible ASCII characters are allowed"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> EngineLoop::Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) {
  TP_RETURN_IF_ERROR(Validate(request));
  MutexLock lock(&mutex_);
  if (stop_) return absl::UnavailableError("the worker is shutting down");
  if (queued_ >= kMaxQueuedRequests) {
    ++rejected_;
    return absl::ResourceExhaustedError(
        absl::StrCat("queue: ", queued_, " requests are waiting, at most ", kMaxQueuedRequests));
  }
  const uint64_t id = next_id_++;
  incoming_.push_back(std::make_unique<Generation>(id, std::move(request), std::move(sink), model_.get()));
  ++queued_;
  woken_ = true;
  wake_.Signal();
  return id;
}

void EngineLoop::Cancel(uint64_t request) {
  MutexLock lock(&mutex_);
  cancels_.push_back(request);
  woken_ = true;
  wake_.Signal();
}

EngineStats EngineLoop::Stats() const {
  EngineStats stats;
  {
    MutexLock lock(&mutex_);
    stats = stats_;
    stats.requests_rejected = rejected_;
  }
  if (cache_ != nullptr) stats.cache = cache_->Stats();
  stats.refused_prefix_tokens = load_cost_.refused_tokens();
  return stats;
}

void EngineLoop::Post(std::function<void()> job) {
  MutexLock lock(&mutex_);
  posted_.push_back(std::move(job));
  woken_ = true;
  wake_.Signal();
}

Generation* EngineLoop::Find(uint64_t id) {
  for (std::unique_ptr<Generation>& generation : active_) {
    if (generation->id() == id) return generation.get();
  }
  return nullptr;
}

void EngineLoop::Loop() {
  for (;;) {
    TakeInbox();
    EndCancelledAndLate();
    StartLoads();
    AdmitLoaded();
    const bool stepped = Step();
    if (!stepped) pace_.Idle();
    StoreFinished();
    EndSessions();
    active_.remove_if([](const std::unique_ptr<Generation>& g) { return g->phase == Generation::Phase::kDone; });
    PublishStats();
    TakePicture();
    MutexLock lock(&mutex_);
    if (!stepped) {
      // Deadlines of waiting requests are looked at now and then.
      const auto tick = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
      while (!woken_ && !stop_) {
        if (active_.empty() && waiting_.empty()) {
          wake_.Wait(&mutex_);
        } else if (!wake_.WaitUntil(&mutex_, tick)) {
          break;
        }
      }
    }
    woken_ = false;
    if (stop_) break;
  }
  TakeInbox();
  for (std::unique_ptr<Generation>& generation : waiting_)
    Close(*generation, absl::UnavailableError("the worker is shutting down"), FinishReason::kCancelled);
  for (std::unique_ptr<Generation>& generation : active_) {
    Close(*generation, absl::UnavailableError("the worker is shutting down"), FinishReason::kCancelled);
  }
  waiting_.clear();
  active_.clear();
  idle_.clear();
  for (SessionEnd& end : session_ends_) end.done(absl::UnavailableError("the worker is shutting down"));
  session_ends_.clear();
  PublishStats();
}

void EngineLoop::TakeInbox() {
  std::vector<std::unique_ptr<Generation>> incoming;
  std::vector<uint64_t> cancels;
  std::vector<std::function<void()>> posted;
  {
    MutexLock lock(&mutex_);
    incoming.swap(incoming_);
    cancels.swap(cancels_);
    posted.swap(posted_);
  }
  for (std::unique_ptr<Generation>& generation : incoming) waiting_.push_back(std::move(generation));
  for (uint64_t id : cancels) {
    if (Generation* generation = Find(id); generation != nullptr) generation->cancelled = true;
    for (std::unique_ptr<Generation>& generation : waiting_) {
      if (generation->id() == id) generation->cancelled = true;
    }
  }
  for (std::function<void()>& job : posted) job();
}

void EngineLoop::EndCancelledAndLate() {
  const absl::Time now = absl::Now();
  auto end_if_due = [&](Generation& generation) {
    // What is being stored has been answered in full already.
    if (generation.phase == Generation::Phase::kStoring || generation.phase == Generation::Phase::kDone) return;
    if (generation.cancelled) {
      Close(generation, absl::OkStatus(), FinishReason::kCancelled);
    } else if (generation.request().deadline < now) {
      Close(generation, absl::OkStatus(), FinishReason::kDeadline);
    }
  };
  for (std::unique_ptr<Generation>& generation : active_) end_if_due(*generation);
  for (std::unique_ptr<Generation>& generation : waiting_) end_if_due(*generation);
  std::erase_if(waiting_, [](const std::unique_ptr<Generation>& g) { return g->phase == Generation::Phase::kDone; });
  active_.remove_if([](const std::unique_ptr<Generation>& g) { return g->phase == Generation::Phase::kDone; });
}

bool EngineLoop::Step() {
  // Every decoding sequence gives one token; prompts share what is left of the chunk.
  std::vector<StepSlice> slices;
  std::vector<Generation*> generations;
  std::vector<Context*> contexts;
  int32_t room = 0;
  auto add = [&](Generation& generation, int32_t count) {
    Context& context = *generation.context();
    context.BeginStep(count);
    StepSlice slice;
    slice.rows = &context.rows();
    slice.tokens = context.StepTokens(count);
    slice.first_position = context.step_position();
    slice.row_copies = context.RowCopies(count);
    slice.copy_stride = context.copy_stride();
    const bool wanted = context.uncomputed() == count && !context.repeating() && !generation.nothing_to_generate();
    slice.logits_rows = wanted ? 1 : 0;
    slices.push_back(slice);
    generations.push_back(&generation);
    contexts.push_back(&context);
    room -= count;
  };
  const absl::Time start = absl::Now();
  for (std::unique_ptr<Generation>& generation : active_) {
    if (generation->phase != Generation::Phase::kDecode) continue;
    add(*generation, 1);
    slices.back().decodes = true;
  }
  const auto decoding = static_cast<int>(slices.size());
  // However many decode, a prompt goes on.
  room = std::max(std::min(pace_.PromptTokens(decoding), options_.prefill_chunk_tokens - decoding), 1);
  int prompt_tokens = room;
  double depths = 0;                 // of all of them
  std::vector<Generation*> prompts;  // in order of arrival
  for (std::unique_ptr<Generation>& generation : active_) {
    if (generation->phase == Generation::Phase::kPrefill) prompts.push_back(generation.get());
  }
  std::vector<int32_t> left;
  for (Generation* generation : prompts) left.push_back(generation->context()->NextChunk(INT32_MAX));
  const std::vector<int32_t> shares = PromptShares(room, left);
  int32_t to_share = 0;  // what those before did not need
  for (size_t i = 0; i < prompts.size() && room > 0; ++i) {
    to_share += shares[i];
    if (to_share == 0) continue;
    add(*prompts[i], prompts[i]->context()->NextChunk(to_share));
    const auto count = static_cast<int32_t>(slices.back().tokens.size());
    to_share -= count;
    depths += count * (slices.back().first_position + count / 2.0);
  }
  prompt_tokens -= room;
  if (slices.empty()) return false;

  const int64_t vocabulary = model_->config().vocabulary;
  logits_.resize(slices.size() * vocabulary);
  for (size_t i = 0; i < slices.size(); ++i) {
    slices[i].logits = logits_.data() + i * vocabulary;
    Generation& generation = *generations[i];
    const int needed = generation.phase == Generation::Phase::kDecode ? generation.best_needed() : 0;
    generation.sees_best = backend_->finds_best() && needed > 0 && needed <= kMostBest;
    if (!generation.sees_best) continue;
    slices[i].best = needed;
    slices[i].best_logits = &generation.best_logits;
  }
  std::vector<RecallSlice> recall_slices;
  ObservedStep observed(backend_.get(), &recall_);
  for (size_t i = 0; i < contexts.size(); ++i) {
    Context& context = *contexts[i];
    const bool prompt = generations[i]->phase == Generation::Phase::kPrefill;
    recall_slices.push_back({&context.rows(), &context.log(), context.step_recall(), context.step_ring(),
                             slices[i].first_position, static_cast<int32_t>(slices[i].tokens.size()), prompt,
                             meter_.RecallOf(*generations[i]), prompt ? nullptr : context.step_compressor(),
                             !prompt && context.step_selects()});
    observed.Add({context.repeating() ? nullptr : context.observer(), &context.rows(), slices[i].first_position,
                  static_cast<int32_t>(slices[i].tokens.size()), context.compressor().compressed()});
  }
  recall_.Begin(std::move(recall_slices));
  backend_->Step(slices, observed.hook());
  recall_.End();
  ++counted_.steps;
  const absl::Duration a_prompt_token = pace_.Observe(decoding, prompt_tokens, absl::Now() - start);
  if (a_prompt_token > absl::ZeroDuration()) load_cost_.Computed(depths / prompt_tokens, a_prompt_token);
  for (size_t i = 0; i < slices.size(); ++i) {
    contexts[i]->log().set_may_wait(decoding == 0);  // who is being answered is not held up by a full buffer
    AfterStep(*generations[i], absl::MakeConstSpan(slices[i].logits, slices[i].logits_rows * vocabulary),
              static_cast<int32_t>(slices[i].tokens.size()));
  }
  return true;
}

void EngineLoop::AfterStep(Generation& generation, absl::Span<const float> logits, int32_t tokens) {
  Context& context = *generation.context();
  const bool prefill = generation.phase == Generation::Phase::kPrefill;
  const bool repeated = context.repeating();
  const bool prompt_continues = prefill && !repeated && context.uncomputed() > tokens;
  context.EndStep(tokens, prefill);
  generation.NoteRecall();
  if (RowRecall* recall = context.recall(); recall != nullptr && !recall->failure().ok()) {
    return Recompute(generation, recall->failure());
  }
  if (prefill) {
    generation.ReportProgress(context.computed());
    if (prompt_continues || context.repeating()) return;
    if (!repeated && context.BeginRepetition()) {
      generation.prompt_logits.assign(logits.begin(), logits.end());
      return;
    }
    if (repeated) logits = generation.prompt_logits;
    context.EndPrefill();
    generation.phase = Generation::Phase::kDecode;
    if (generation.nothing_to_generate()) return End(generation, absl::OkStatus(), FinishReason::kLength);
  }
  if (generation.Replay()) return;
  absl::StatusOr<std::optional<FinishReason>> reason = generation.Next(logits, scratch_);
  if (!reason.ok()) return End(generation, reason.status(), FinishReason::kStop);
  meter_.Drew(generation);
  if (reason->has_value()) return End(generation, absl::OkStatus(), **reason);
  if (static_cast<int64_t>(context.token_ids().size()) >= model_->config().context_tokens) {
    return End(generation, absl::OkStatus(), FinishReason::kLength);
  }
}

void EngineLoop::End(Generation& generation, absl::Status status, FinishReason reason) {
  if (!status.ok() || generation.request().session_id.empty()) return Close(generation, std::move(status), reason);
  generation.finish_reason = reason;
  generation.phase = Generation::Phase::kStoring;
  generation.timeline.store_began = absl::Now();
  Context& context = *generation.context();
  context.log().set_on_idle([this] { Post([] {}); });
  context.log().StoreTail();
}

void EngineLoop::Close(Generation& generation, absl::Status status, FinishReason reason) {
  if (generation.phase == Generation::Phase::kDone) return;
  const bool session_stored = generation.phase == Generation::Phase::kStoring && status.ok();
  if (session_stored) generation.session_turns = generation.context()->revision;
  if (generation.phase != Generation::Phase::kWaiting && !generation.request().session_id.empty()) {
    busy_sessions_.erase(NameOf(generation.request()));
  }
  loaded_.erase(generation.id());
  reserved_pages_ -= generation.reserved_pages;
  generation.reserved_pages = 0;
  if (Context* context = generation.context(); context != nullptr) {
    generation.RecordUsage(*backend_, backend_->pool().page_bytes());
    std::unique_ptr<Context> taken = generation.TakeContext();
    if (session_stored) {
      taken->log().set_on_idle(nullptr);
      taken->Rest();
      idle_.push_back(std::move(taken));
    }  // else its pages are free now; a session goes on from its last manifest
  }
  if (status.ok() && generation.usage.budget_exceeded) {
    TP_LOG(Info, "engine", "request '", generation.request().request_id, "': what preset ",
           generation.request().compression.preset, " never gives up was more than its device budget for a while");
  }
  if (!status.ok()) {
    const bool asked_wrong = absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status);
    WriteLog(asked_wrong ? LogLevel::kInfo : LogLevel::kWarning, "engine",
             absl::StrCat("request '", generation.request().request_id, "' failed: ", status.message()));
  }
  meter_.Ended(generation, status, reason);
  LeaveQueue(generation);
  generation.phase = Generation::Phase::kDone;
  PublishStats();  // who learns of the end finds the pages free
  generation.Finish(std::move(status), reason);
}

void EngineLoop::LeaveQueue(Generation& generation) {
  if (!generation.queued) return;
  generation.queued = false;
  MutexLock lock(&mutex_);
  --queued_;
}

void EngineLoop::PublishStats() {
  counted_.running_sequences = 0;
  int64_t waiting = static_cast<int64_t>(waiting_.size());
  counted_.waiting_tokens = 0;
  for (const std::unique_ptr<Generation>& generation : waiting_) {
    counted_.waiting_tokens += static_cast<int64_t>(generation->request().prompt.size());
  }
  for (const std::unique_ptr<Generation>& generation : active_) {
    switch (generation->phase) {
      case Generation::Phase::kWaiting:
      case Generation::Phase::kLoading:
      case Generation::Phase::kLoaded:
        ++waiting;
        counted_.waiting_tokens += static_cast<int64_t>(generation->request().prompt.size());
        break;
      case Generation::Phase::kPrefill: counted_.waiting_tokens += generation->context()->uncomputed(); [[fallthrough]];
      case Generation::Phase::kDecode:
      case Generation::Phase::kStoring: ++counted_.running_sequences; break;
      case Generation::Phase::kDone: break;
    }
  }
  counted_.waiting_requests = waiting;
  counted_.total_pages = backend_->pool().total();
  counted_.used_pages = backend_->pool().used();
  counted_.page_bytes = static_cast<int64_t>(backend_->pool().page_bytes());
  counted_.recalls = recall_.requests();
  counted_.prompt_token_seconds = absl::ToDoubleSeconds(pace_.prompt_token());
  MutexLock lock(&mutex_);
  stats_ = counted_;
}

}  // namespace tidepool
