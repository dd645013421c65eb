// How requests come in: what they build on is loaded, and they start when their pages are free.
#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/engine/context_codec.h"
#include "worker/engine/engine_loop.h"
#include "worker/engine/pages_needed.h"
#include "worker/kv/device_shape.h"

namespace tidepool {
namespace {

// Of one request. The pods that rows are lost by are left out after a while, so there are pauses: 1.5 s in all.
constexpr int kMostRecomputations = 5;
constexpr absl::Duration kFirstRest = absl::Milliseconds(100);

std::string RandomNonce() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

// The prompt of a turn that follows others.
void ContinueSession(const SessionManifest& manifest, GenerationRequest* request) {
  if (request->continuation.empty() || manifest.token_ids.empty()) return;
  const bool ended = manifest.token_ids.back() == request->continuation.front();
  request->prompt.assign(request->continuation.begin() + (ended ? 1 : 0), request->continuation.end());
}

}  // namespace

void EngineLoop::StartLoads() {
  for (auto at = waiting_.begin();
       at != waiting_.end() && static_cast<int>(active_.size()) < options_.max_active_sequences;) {
    const SessionName session = NameOf((*at)->request());
    const bool ends = std::any_of(session_ends_.begin(), session_ends_.end(),
                                  [&](const SessionEnd& end) { return end.session == session; });
    if (!session.id.empty() && (ends || busy_sessions_.contains(session))) {  // turns of a session follow one another
      ++at;
      continue;
    }
    active_.push_back(std::move(*at));
    at = waiting_.erase(at);
    Generation& generation = *active_.back();
    const GenerationRequest& request = generation.request();
    generation.phase = Generation::Phase::kLoading;
    generation.timeline.lookup_began = absl::Now();
    const uint64_t id = generation.id();
    if (!session.id.empty()) {
      busy_sessions_.insert(session);
      int64_t resident = -1;
      for (const std::unique_ptr<Context>& context : idle_) {
        if (context->options().session() == session) resident = context->revision;
      }
      LoadSession(generation, resident);
    } else if (const int32_t most =
                   Compressor::ReusablePrefix(request.compression, static_cast<int32_t>(request.prompt.size()));
               cache_ != nullptr && request.reuse_prefix && most >= kBlockTokens) {
      background_->Run([this, id, prompt = request.prompt, most, loader = Loader(request.tenant)] {
        auto loaded = std::make_shared<LoadedContext>(loader.LoadPrefix(prompt, most));
        Post([this, id, loaded] { OnLoaded(id, std::move(*loaded)); });
      });
    } else {  // nothing is looked up
      generation.timeline.lookup_began = absl::InfinitePast();
      OnLoaded(id, LoadedContext());
    }
  }
}

ContextLoader EngineLoop::Loader(const std::string& tenant) {
  return ContextLoader(backend_->layout(), tenant, SaltOf(tenant), options_.cache_deadline, cache_, manifests_,
                       &load_cost_);
}

std::string EngineLoop::SaltOf(const std::string& tenant) const {
  return tenant == options_.tenant ? options_.tenant_salt : SaltOfTenant(options_.tenant_salt, tenant);
}

absl::StatusOr<Engine::PromptKeys> EngineLoop::KeysOf(const GenerationRequest& given) const {
  GenerationRequest request = given;
  TP_RETURN_IF_ERROR(Validate(request));
  const size_t tokens = request.prompt.size();
  PromptKeys keys;
  keys.tenant = request.tenant;
  keys.keys = ExactChain(SaltOf(request.tenant), backend_->layout(), request.prompt, tokens);
  keys.usable_blocks = Compressor::ReusablePrefix(request.compression, static_cast<int32_t>(tokens)) / kBlockTokens;
  keys.cost = load_cost_.Expect({0, keys.usable_blocks * kBlockTokens}, absl::Now());
  return keys;
}

void EngineLoop::LoadSession(const Generation& generation, int64_t resident) {
  background_->Run([this, id = generation.id(), session = generation.request().session_id, resident,
                    loader = Loader(generation.request().tenant)] {
    auto loaded = std::make_shared<LoadedContext>(loader.LoadSession(session, resident));
    Post([this, id, loaded] { OnLoaded(id, std::move(*loaded)); });
  });
}

void EngineLoop::OnLoaded(uint64_t id, LoadedContext loaded) {
  Generation* generation = Find(id);
  if (generation == nullptr || generation->phase != Generation::Phase::kLoading) return;  // cancelled meanwhile
  generation->timeline.lookup_ended = absl::Now();
  generation->usage.slow_prompt_tokens = loaded.slow_tokens;
  if (!loaded.status.ok()) return Close(*generation, loaded.status, FinishReason::kStop);
  const int64_t turns = loaded.manifest.has_value() ? loaded.manifest->revision : 0;
  if (generation->request().session_turns >= 0 && generation->request().session_turns != turns) {
    return Close(*generation,
                 absl::AbortedError(absl::StrCat("session_turns: ", generation->request().session_turns, ", session '",
                                                 generation->request().session_id, "' has ", turns)),
                 FinishReason::kStop);
  }
  if (loaded.manifest.has_value()) {
    CompressionSpec& wanted = generation->mutable_request().compression;
    absl::StatusOr<ContextCodec::Outline> stored = ContextCodec::OutlineOf(*loaded.manifest);
    if (!stored.ok()) {  // the tokens are there all the same
      TP_LOG(Warning, "engine", "request '", generation->request().request_id, "': ", stored.status().message(),
             "; it is computed again");
      stored = ContextCodec::Outline{wanted};
      if (wanted.preset.empty()) stored->spec = PresetSpec(loaded.manifest->preset).value_or(CompressionSpec());
      loaded.resident_is_current = false;
      loaded.blocks_missing = true;
      loaded.values.clear();
      loaded.keys.clear();
    }
    if (!wanted.preset.empty() && !(wanted == stored->spec)) {
      return Close(*generation,
                   absl::InvalidArgumentError(
                       absl::StrCat("compression: differs from that of session '", generation->request().session_id,
                                    "', which is ", CompressionFingerprint(stored->spec), "; leave it out to keep it")),
                   FinishReason::kStop);
    }
    wanted = stored->spec;
    loaded.longest_head = stored->longest_head;
  } else if (generation->request().compression.preset.empty()) {
    generation->mutable_request().compression = CompressionSpec();
  }
  if (loaded.manifest.has_value()) ContinueSession(*loaded.manifest, &generation->mutable_request());
  const int64_t before = loaded.manifest.has_value() ? static_cast<int64_t>(loaded.manifest->token_ids.size()) : 0;
  const int64_t tokens = before + static_cast<int64_t>(generation->request().prompt.size());
  if (tokens == 0) {
    return Close(*generation, absl::InvalidArgumentError("prompt: has no tokens, and the session is new"),
                 FinishReason::kStop);
  }
  if (tokens + static_cast<int64_t>(generation->request().forced_tokens.size()) > model_->config().context_tokens) {
    return Close(*generation,
                 absl::InvalidArgumentError(
                     absl::StrCat("prompt: ", tokens, " tokens with those of the session, the model's context holds ",
                                  model_->config().context_tokens)),
                 FinishReason::kStop);
  }
  generation->phase = Generation::Phase::kLoaded;
  const int64_t most = tokens + std::max<int64_t>(generation->request().stop.max_tokens, 0);
  if (absl::Status held = CheckBudget(generation->request().compression,
                                      DeviceShapeOf(backend_->layout(), generation->request().compression),
                                      std::min<int64_t>(most, model_->config().context_tokens));
      !held.ok()) {
    return Close(*generation, std::move(held), FinishReason::kStop);
  }
  loaded_[id] = std::move(loaded);
  generation->need_pages = PagesNeeded(*generation);
  if (generation->need_pages > backend_->pool().total()) {
    Close(*generation,
          absl::ResourceExhaustedError(absl::StrCat("prompt: needs ", generation->need_pages, " slot pages of ",
                                                    backend_->pool().page_bytes(), " bytes, the worker has ",
                                                    backend_->pool().total(), " (device_kv_bytes)")),
          FinishReason::kStop);
  }
}

int64_t EngineLoop::PagesNeeded(const Generation& generation) const {
  const LoadedContext& loaded = loaded_.at(generation.id());
  const GenerationRequest& request = generation.request();
  const CompressionSpec& spec = request.compression;
  const int64_t before = loaded.manifest.has_value() ? static_cast<int64_t>(loaded.manifest->token_ids.size()) : 0;
  const int64_t tokens = before + static_cast<int64_t>(request.prompt.size());
  const int64_t most = std::min<int64_t>(tokens + request.stop.max_tokens, model_->config().context_tokens);
  return tidepool::PagesNeeded(spec, DeviceShapeOf(backend_->layout(), spec),
                               {.before = before,
                                .prompt = static_cast<int64_t>(request.prompt.size()),
                                .most = most,
                                .resumed = before > 0 && !loaded.blocks_missing,
                                .longest_head = loaded.longest_head},
                               &repetition_words_);
}

std::unique_ptr<Context> EngineLoop::TakeIdle(const SessionName& session) {
  const auto at = std::find_if(idle_.begin(), idle_.end(), [&](const std::unique_ptr<Context>& context) {
    return context->options().session() == session;
  });
  if (session.id.empty() || at == idle_.end()) return nullptr;
  std::unique_ptr<Context> taken = std::move(*at);
  idle_.erase(at);
  return taken;
}

bool EngineLoop::MakeRoom(int64_t pages) {
  const int64_t free = backend_->pool().total() - reserved_pages_ - pages;
  if (free < 0) return false;
  int64_t idle = 0;
  for (const std::unique_ptr<Context>& context : idle_) idle += context->rows().total_pages();
  while (idle > free) {
    idle -= idle_.front()->rows().total_pages();
    idle_.pop_front();
  }
  return true;
}

void EngineLoop::AdmitLoaded() {
  for (std::unique_ptr<Generation>& generation : active_) {
    if (generation->phase != Generation::Phase::kLoaded || generation->rests_until > absl::Now()) continue;
    const GenerationRequest& request = generation->request();
    // Its own idle context becomes part of what it reserves.
    std::unique_ptr<Context> own = TakeIdle(NameOf(request));
    if (!MakeRoom(generation->need_pages)) {
      if (own != nullptr) idle_.push_back(std::move(own));
      break;  // first come, first served
    }
    LoadedContext& waiting = loaded_[generation->id()];
    if (waiting.resident_is_current &&
        (own == nullptr || own->token_ids() != waiting.manifest->token_ids)) {  // it had to go meanwhile
      loaded_.erase(generation->id());
      generation->phase = Generation::Phase::kLoading;
      LoadSession(*generation, -1);
      continue;
    }
    if (waiting.resident_is_current && own->uncomputed() == 0 && request.prompt.empty()) {
      idle_.push_back(std::move(own));
      Close(*generation, absl::InvalidArgumentError("prompt: has no tokens, and all of the session's are computed"),
            FinishReason::kStop);
      continue;
    }
    LoadedContext loaded = std::move(waiting);
    loaded_.erase(generation->id());
    std::unique_ptr<Context> context;
    EngineMeter::Source source = EngineMeter::Source::kNone;
    if (loaded.resident_is_current) {
      source = EngineMeter::Source::kResident;
      context = std::move(own);
    } else if (own.reset(); loaded.manifest.has_value() && !loaded.blocks_missing) {
      absl::StatusOr<std::unique_ptr<Context>> restored = ContextCodec::Restore(
          *loaded.manifest, loaded.values, MakeContextOptions(request, ""), backend_.get(), cache_);
      if (!restored.ok()) {  // the tokens are there all the same; they need more room
        TP_LOG(Warning, "engine", "request '", request.request_id, "': ", restored.status().message(),
               "; it is computed again");
        loaded.blocks_missing = true;
        loaded.values.clear();
        loaded_[generation->id()] = std::move(loaded);
        generation->need_pages = PagesNeeded(*generation);
        continue;
      }
      source = EngineMeter::Source::kRestored;
      context = *std::move(restored);
    } else {
      context = std::make_unique<Context>(backend_.get(), cache_, MakeContextOptions(request, RandomNonce()));
      if (loaded.manifest.has_value()) {
        context->AddTokens(loaded.manifest->token_ids);
        context->revision = loaded.manifest->revision;
      }
      if (!loaded.values.empty()) {
        source = EngineMeter::Source::kPrefix;
        context->AdoptPrefix(loaded.keys, loaded.values);
      }
    }
    const int64_t cached = context->computed();
    generation->reserved_pages = generation->need_pages;
    reserved_pages_ += generation->reserved_pages;
    context->AddTokens(request.prompt);
    context->set_observer(request.observer.get());
    generation->usage.prompt_tokens = static_cast<int64_t>(context->token_ids().size());
    generation->Start(std::move(context), cached);
    generation->phase = Generation::Phase::kPrefill;
    if (generation->usage.recomputations > 0) continue;  // it has been counted
    LeaveQueue(*generation);
    meter_.Admitted(*generation, source, cache_ != nullptr && (request.reuse_prefix || !request.session_id.empty()));
    if (generation->context()->uncomputed() == 0) {
      End(*generation, absl::InvalidArgumentError("prompt: has no tokens, and all of the session's are computed"),
          FinishReason::kStop);
    }
  }
}

void EngineLoop::Recompute(Generation& generation, const absl::Status& lost) {
  const bool may = generation.request().compression.recall.on_loss == OnRecallLoss::kRecompute;
  const int before = generation.usage.recomputations;
  if (!may || before == kMostRecomputations) return End(generation, lost, FinishReason::kStop);
  TP_LOG(Warning, "engine", "request '", generation.request().request_id, "': ", lost.message(),
         "; its context is computed again");
  // As a session whose blocks are gone, of which the tokens are known.
  const Context& context = *generation.context();
  LoadedContext tokens;
  tokens.blocks_missing = true;
  const int64_t earlier = generation.usage.prompt_tokens - static_cast<int64_t>(generation.request().prompt.size());
  if (earlier > 0) {
    tokens.manifest.emplace();
    tokens.manifest->revision = context.revision;
    tokens.manifest->token_ids.assign(context.token_ids().begin(), context.token_ids().begin() + earlier);
  }
  generation.RecordUsage(*backend_, backend_->pool().page_bytes());
  generation.Restart();
  reserved_pages_ -= generation.reserved_pages;
  generation.reserved_pages = 0;
  loaded_[generation.id()] = std::move(tokens);
  generation.need_pages = PagesNeeded(generation);
  if (generation.need_pages > backend_->pool().total()) return Close(generation, lost, FinishReason::kStop);
  generation.phase = Generation::Phase::kLoaded;
  if (before > 0) generation.rests_until = absl::Now() + kFirstRest * (1 << (before - 1));
}

ContextOptions EngineLoop::MakeContextOptions(const GenerationRequest& request, std::string nonce) const {
  ContextOptions options;
  options.spec = request.compression;
  options.session_id = request.session_id;
  options.tenant = request.tenant;
  options.tenant_salt = SaltOf(request.tenant);
  options.nonce = std::move(nonce);
  options.query_heads = model_->config().heads;
  options.token_classes = token_classes_;
  options.staging = staging_;
  options.repetition = repetition_words_;
  return options;
}

}  // namespace tidepool
