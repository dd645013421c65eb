// Sessions, stored prefixes and recall through the real storage (memory tier and RocksDB in this process).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using test::Answer;
using test::RunRequest;
using testing::HasSubstr;

std::shared_ptr<const Model> TinyModel() {
  static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  return model;
}

KvLayout Layout() {
  const ModelConfig& config = TinyModel()->config();
  KvLayout layout;
  layout.model_fingerprint = TinyModel()->fingerprint();
  layout.layers = config.layers;
  layout.kv_heads = config.kv_heads;
  layout.head_dim = config.head_dim;
  return layout;
}

// A worker over a data directory; Restart is a new process's view of the same directory.
class Worker {
 public:
  Worker() { Start(); }
  void Start() {
    CacheOptions options;
    options.data_dir = dir_.path();
    auto cache = EmbeddedCache::Open(options, Layout());
    if (!cache.ok()) throw std::runtime_error(std::string(cache.status().message()));
    cache_ = *std::move(cache);
    EngineOptions engine;
    engine.device_kv_bytes = size_t{64} << 20;
    engine.prefill_chunk_tokens = 64;
    engine_ = *Engine::Create(engine, TinyModel(), cache_.get(), cache_->manifests());
  }
  void Restart() {
    engine_.reset();
    cache_.reset();
    Start();
  }
  Engine& engine() { return *engine_; }
  EmbeddedCache& cache() { return *cache_; }

 private:
  test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> cache_;
  std::unique_ptr<Engine> engine_;
};

std::vector<int32_t> RandomTokens(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % TinyModel()->config().vocabulary);
  return tokens;
}

GenerationRequest Turn(const std::string& session, const CompressionSpec& spec, std::vector<int32_t> prompt,
                       int max_tokens) {
  GenerationRequest request;
  request.session_id = session;
  request.compression = spec;
  request.prompt = std::move(prompt);
  request.stop.max_tokens = max_tokens;
  request.stop.ignore_eos = true;
  request.logprobs = 0;
  return request;
}

CompressionSpec Spec(const std::string& preset, RecallMode mode) {
  CompressionSpec spec = *PresetSpec(preset);
  spec.budget_fraction = 0.25;
  spec.window_tokens = 8;
  spec.aha_recent = 8;
  spec.lazy_last = 8;
  spec.lazy_recent = 40;
  spec.lazy_threshold = preset == "simlayerkv" ? 0.2 : 0;
  spec.dense_layers_override = true;
  spec.recall.mode = mode;
  return spec;
}

std::vector<float> Logprobs(const Answer& answer) {
  std::vector<float> values;
  for (const TokenLogprob& l : answer.logprobs) values.push_back(l.logprob);
  return values;
}

struct Mode {
  std::string preset;
  RecallMode recall;
  PrefillMode prefill = PrefillMode::kWhole;
  RecallIndex index = RecallIndex::kK4;
  KvPrecision precision = KvPrecision::kF16;
  SelectScope scope = SelectScope::kHead;
};

TEST(SessionTurnTest, TheContinuationReplacesThePromptOnceThereIsAnAnswer) {
  Worker continued, plain;
  const std::vector<int32_t> first = RandomTokens(70, 1);
  const int32_t stop = RunRequest(plain.engine(), Turn("", {}, first, 3)).tokens.back();
  // The first turn takes the prompt, and the third one's answer did not end with the token that ends answers: it is
  // written. The second's did: it is not written twice.
  const std::vector<int32_t> next = {5, 6, 7};
  std::vector<int32_t> closing = {stop};
  closing.insert(closing.end(), next.begin(), next.end());
  for (const int turn : {0, 1, 2}) {
    GenerationRequest with = Turn("s", {}, turn == 0 ? first : RandomTokens(40, 9), 3);
    with.continuation = closing;
    const GenerationRequest without = Turn("s", {}, turn == 0 ? first : turn == 1 ? next : closing, 3);
    const Answer a = RunRequest(continued.engine(), with), b = RunRequest(plain.engine(), without);
    ASSERT_TRUE(a.result.status.ok()) << a.result.status;
    EXPECT_EQ(a.tokens, b.tokens) << "turn " << turn;
    EXPECT_EQ(a.result.usage.prompt_tokens, b.result.usage.prompt_tokens) << "turn " << turn;
    if (turn == 1) {
      ASSERT_NE(a.tokens.back(), stop) << "choose another first prompt";
    }
  }
}

absl::Status EndSession(Engine& engine, const std::string& session, const std::string& tenant = "") {
  absl::Status ended;
  Mutex mutex;
  CondVar changed;
  bool done = false;
  engine.EndSession({session, tenant}, [&](absl::Status status) {
    MutexLock lock(&mutex);
    ended = std::move(status);
    done = true;
    changed.SignalAll();
  });
  MutexLock lock(&mutex);
  while (!done) changed.Wait(&mutex);
  return ended;
}

TEST(SessionTurnTest, ATurnThatTheSessionDoesNotWaitForIsRefused) {
  Worker worker;
  auto run = [&](int64_t turns_before, int seed) {
    GenerationRequest turn = Turn("s", {}, RandomTokens(70, seed), 3);
    turn.session_turns = turns_before;
    return RunRequest(worker.engine(), turn).result;
  };
  EXPECT_TRUE(absl::IsAborted(run(1, 1).status));
  EXPECT_EQ(run(0, 1).session_turns, 1);
  // Asked again by a client that has not seen the end: it must not run twice.
  const GenerationResult again = run(0, 1);
  EXPECT_TRUE(absl::IsAborted(again.status));
  EXPECT_THAT(again.status.message(), HasSubstr("session_turns: 0, session 's' has 1"));
  EXPECT_EQ(again.session_turns, 0);
  worker.Restart();
  EXPECT_EQ(run(1, 2).session_turns, 2);
  EXPECT_EQ(run(-1, 3).session_turns, 3);  // whoever does not say takes any
  GenerationRequest without = Turn("", {}, RandomTokens(5, 1), 1);
  without.session_turns = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(RunRequest(worker.engine(), without).result.status));
}

absl::StatusOr<RequestEstimate> Estimate(Engine& engine, GenerationRequest request) {
  std::promise<absl::StatusOr<RequestEstimate>> estimate;
  engine.Estimate(std::move(request), [&](absl::StatusOr<RequestEstimate> result) { estimate.set_value(result); });
  return estimate.get_future().get();
}

TEST(SessionTurnTest, AnEstimateSaysWhatIsStoredAndHowBusyTheWorkerIs) {
  Worker worker;
  const std::vector<int32_t> prompt = RandomTokens(200, 1);
  RequestEstimate estimate = *Estimate(worker.engine(), Turn("", {}, prompt, 3));
  EXPECT_EQ(estimate.prompt_tokens, 200);
  EXPECT_EQ(estimate.stored_tokens, 0);
  EXPECT_EQ(estimate.prompt_token_seconds, 0);
  ASSERT_TRUE(RunRequest(worker.engine(), Turn("s", {}, prompt, 3)).result.status.ok());
  estimate = *Estimate(worker.engine(), Turn("", {}, prompt, 3));
  EXPECT_EQ(estimate.stored_tokens, 192);  // whole blocks
  EXPECT_EQ(estimate.session_turns, 0);
  EXPECT_GT(estimate.prompt_token_seconds, 0);
  GenerationRequest next = Turn("s", {}, RandomTokens(50, 2), 3);
  next.continuation = RandomTokens(7, 3);
  estimate = *Estimate(worker.engine(), next);
  EXPECT_EQ(estimate.prompt_tokens, 203 + 7);
  EXPECT_EQ(estimate.stored_tokens, 203);
  EXPECT_EQ(estimate.session_turns, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(Estimate(worker.engine(), Turn("", {}, {-1}, 3)).status()));

  // While a request is under way, with another one behind it.
  Mutex mutex;
  CondVar changed;
  bool held = true, reached = false;
  auto running = std::make_shared<test::Collector>(), waiting = std::make_shared<test::Collector>();
  running->set_on_token([&](int) {
    MutexLock lock(&mutex);
    reached = true;
    changed.SignalAll();
    while (held) changed.Wait(&mutex);
  });
  ASSERT_TRUE(worker.engine().Submit(Turn("", {}, RandomTokens(30, 4), 2), running).ok());
  {
    MutexLock lock(&mutex);
    while (!reached) changed.Wait(&mutex);
  }
  ASSERT_TRUE(worker.engine().Submit(Turn("", {}, RandomTokens(60, 5), 2), waiting).ok());
  estimate = *Estimate(worker.engine(), GenerationRequest());
  EXPECT_EQ(estimate.prompt_tokens, 0);
  EXPECT_GE(estimate.waiting_tokens, 60);
  EXPECT_EQ(estimate.waiting_requests, 1);
  {
    MutexLock lock(&mutex);
    held = false;
    changed.SignalAll();
  }
  EXPECT_TRUE(running->Wait().status.ok());
  EXPECT_TRUE(waiting->Wait().status.ok());
  EXPECT_EQ(Estimate(worker.engine(), GenerationRequest())->waiting_tokens, 0);
}

TEST(SessionTurnTest, APictureShowsWhatEachLayerHolds) {
  Worker worker;
  GenerationRequest request = Turn("", Spec("snapkv", RecallMode::kSync), RandomTokens(300, 1), 200);
  request.request_id = "seen";
  // A token for each look: the engine does not run ahead of who watches it.
  Mutex mutex;
  CondVar changed;
  int looks = 0;
  auto sink = std::make_shared<test::Collector>();
  sink->set_on_token([&](int tokens) {
    MutexLock lock(&mutex);
    while (looks < tokens) changed.Wait(&mutex);
  });
  const uint64_t id = *worker.engine().Submit(request, sink);
  EnginePicture picture;
  while (picture.sequences.empty() || picture.sequences[0].phase != std::string("decode")) {
    picture = worker.engine().Picture();
    MutexLock lock(&mutex);
    ++looks;
    changed.SignalAll();
  }
  const SequencePicture& sequence = picture.sequences[0];
  EXPECT_EQ(picture.sequences.size(), 1u);
  EXPECT_EQ(sequence.request_id, "seen");
  EXPECT_EQ(sequence.preset, "snapkv");
  EXPECT_GE(sequence.generated, 1);
  EXPECT_EQ(sequence.rows, sequence.computed * TinyModel()->config().kv_heads);
  ASSERT_EQ(sequence.layers.size(), static_cast<size_t>(TinyModel()->config().layers));
  for (const LayerPicture& layer : sequence.layers) {
    EXPECT_GT(layer.kept, 0);
    EXPECT_LE(layer.kept + layer.recalled, sequence.rows / 2) << "of a quarter";
  }
  {
    MutexLock lock(&mutex);
    looks = 1000;
    changed.SignalAll();
  }
  worker.engine().Cancel(id);
  sink->Wait();
  while (!picture.sequences.empty()) picture = worker.engine().Picture();
}

TEST(SessionTurnTest, AnEndedSessionIsForgottenAndItsPagesAreFree) {
  Worker worker;
  ASSERT_TRUE(RunRequest(worker.engine(), Turn("s", {}, RandomTokens(70, 1), 3)).result.status.ok());
  ASSERT_TRUE(RunRequest(worker.engine(), Turn("other", {}, RandomTokens(20, 2), 3)).result.status.ok());
  const int64_t both = worker.engine().Stats().used_pages;
  EXPECT_EQ(EndSession(worker.engine(), "s"), absl::OkStatus());
  EXPECT_LT(worker.engine().Stats().used_pages, both);
  EXPECT_GT(worker.engine().Stats().used_pages, 0) << "other is still resident";
  EXPECT_FALSE(worker.cache().manifests()->Get("default", "s", absl::InfiniteFuture())->has_value());
  EXPECT_TRUE(worker.cache().manifests()->Get("default", "other", absl::InfiniteFuture())->has_value());
  EXPECT_EQ(EndSession(worker.engine(), "s"), absl::OkStatus()) << "there is none";
  const Answer again = RunRequest(worker.engine(), Turn("s", {}, RandomTokens(5, 3), 3));
  EXPECT_EQ(again.result.usage.prompt_tokens, 5) << "a new session";
}

TEST(SessionTurnTest, AnEndWaitsForTheTurnUnderWay) {
  Worker worker;
  auto turn = std::make_shared<test::Collector>();
  std::atomic<bool> answered{false}, ended_early{false};
  Mutex mutex;
  CondVar changed;
  bool ended = false;
  turn->set_on_token([&](int tokens) {
    if (tokens == 20) answered = true;
    if (tokens != 1) return;
    worker.engine().EndSession({"s"}, [&](const absl::Status& status) {
      EXPECT_EQ(status, absl::OkStatus());
      ended_early = !answered;
      MutexLock lock(&mutex);
      ended = true;
      changed.SignalAll();
    });
  });
  ASSERT_TRUE(worker.engine().Submit(Turn("s", {}, RandomTokens(30, 1), 20), turn).ok());
  EXPECT_EQ(turn->Wait().status, absl::OkStatus());
  {
    MutexLock lock(&mutex);
    while (!ended) changed.Wait(&mutex);
  }
  EXPECT_FALSE(ended_early);
  EXPECT_FALSE(worker.cache().manifests()->Get("default", "s", absl::InfiniteFuture())->has_value());
  EXPECT_EQ(worker.engine().Stats().used_pages, 0);
}

GenerationRequest Of(const std::string& tenant, GenerationRequest request) {
  request.tenant = tenant;
  return request;
}

TEST(TenantTest, SessionsOfOneNameAreTwoSessions) {
  Worker worker;
  const std::vector<int32_t> first = RandomTokens(70, 1), next = RandomTokens(5, 2);
  ASSERT_TRUE(RunRequest(worker.engine(), Of("a", Turn("s", {}, first, 3))).result.status.ok());
  for (const bool restarted : {false, true}) {  // from the device, and from what is stored
    if (restarted) worker.Restart();
    const std::string other = restarted ? "c" : "b";
    const Answer theirs = RunRequest(worker.engine(), Of(other, Turn("s", {}, next, 3)));
    ASSERT_TRUE(theirs.result.status.ok()) << theirs.result.status;
    EXPECT_EQ(theirs.result.usage.prompt_tokens, 5) << "a new session";
    const Answer own = RunRequest(worker.engine(), Of("a", Turn("s", {}, next, 3)));
    EXPECT_GE(own.result.usage.prompt_tokens, 75);
    EXPECT_GE(own.result.usage.cached_prompt_tokens, 70);
  }
  EXPECT_EQ(EndSession(worker.engine(), "s", "b"), absl::OkStatus());
  EXPECT_FALSE(worker.cache().manifests()->Get("b", "s", absl::InfiniteFuture())->has_value());
  EXPECT_TRUE(worker.cache().manifests()->Get("a", "s", absl::InfiniteFuture())->has_value());
}

TEST(TenantTest, StoredPrefixesOfOthersAreNotHit) {
  Worker worker;
  const std::vector<int32_t> prompt = RandomTokens(200, 4);
  for (const char* tenant : {"", "a", "b"}) {
    const Answer fresh = RunRequest(worker.engine(), Of(tenant, Turn("", {}, prompt, 3)));
    ASSERT_TRUE(fresh.result.status.ok()) << fresh.result.status;
    EXPECT_EQ(fresh.result.usage.cached_prompt_tokens, 0) << "'" << tenant << "'";
    worker.Restart();  // everything offloaded is stored
    const Answer again = RunRequest(worker.engine(), Of(tenant, Turn("", {}, prompt, 3)));
    EXPECT_EQ(again.result.usage.cached_prompt_tokens, 192) << "'" << tenant << "'";
  }
}

TEST(TenantTest, ANameThatIsTooLongIsRefused) {
  Worker worker;
  const auto refused =
      worker.engine().Submit(Of(std::string(129, 't'), Turn("", {}, {1}, 1)), std::make_shared<test::Collector>());
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("tenant: 129 bytes, at most 128"));
}

class SessionTest : public testing::TestWithParam<Mode> {};

TEST_P(SessionTest, AResumedSessionGoesOnBitForBit) {
  CompressionSpec spec = GetParam().preset == "full" ? CompressionSpec() : Spec(GetParam().preset, GetParam().recall);
  spec.prefill = GetParam().prefill;
  spec.prefill_chunk = 64;
  spec.recall.index = GetParam().index;
  spec.recall.shortlist = GetParam().index == RecallIndex::kK4 ? -1 : 20;
  spec.kv_precision = GetParam().precision;
  spec.recall.select_scope = GetParam().scope;
  const bool packs = spec.kv_precision != KvPrecision::kF16;
  if (packs) {
    spec.budget_fraction = 0.6;
    spec.residual_tokens = 24;
  }
  const int first_turn = GetParam().index == RecallIndex::kK4 ? 210 : 330;  // product codes learn from 256 tokens on
  std::vector<Answer> kept, resumed;
  for (const bool restart : {false, true}) {
    Worker worker;
    for (int turn = 0; turn < 4; ++turn) {
      if (restart && turn > 0) worker.Restart();
      const Answer answer =
          RunRequest(worker.engine(), Turn("s", spec, RandomTokens(turn == 0 ? first_turn : 5 + turn, turn), 9));
      ASSERT_TRUE(answer.result.status.ok()) << answer.result.status;
      if (turn > 0) {
        EXPECT_EQ(answer.result.usage.cached_prompt_tokens, answer.result.usage.prompt_tokens - 6 - turn);
      }
      (restart ? resumed : kept).push_back(answer);
    }
  }
  for (size_t turn = 0; turn < kept.size(); ++turn) {
    EXPECT_EQ(resumed[turn].tokens, kept[turn].tokens) << "turn " << turn;
    EXPECT_EQ(Logprobs(resumed[turn]), Logprobs(kept[turn])) << "turn " << turn;
    EXPECT_EQ(resumed[turn].result.usage.resident_rows, kept[turn].result.usage.resident_rows);
    EXPECT_EQ(resumed[turn].result.usage.lost_rows, 0);
    EXPECT_EQ(resumed[turn].result.usage.resident_kv_bytes, kept[turn].result.usage.resident_kv_bytes);
    if (GetParam().recall != RecallMode::kOff) continue;  // its slots are half empty pages
    const auto exact = static_cast<int64_t>(kept[turn].result.usage.resident_rows * Layout().row_bytes());
    EXPECT_EQ(kept[turn].result.usage.resident_kv_bytes < exact, packs);
  }
}

std::vector<Mode> Modes() {
  std::vector<Mode> modes = {{"full", RecallMode::kOff}};
  for (std::string_view preset : PresetNames()) {
    if (preset == "full") continue;
    modes.push_back({std::string(preset), RecallMode::kOff});
    modes.push_back({std::string(preset), RecallMode::kSync});
    CompressionSpec chunked = *PresetSpec(preset);
    chunked.prefill = PrefillMode::kChunked;
    if (!ValidateCompression(chunked).ok()) continue;  // kvzip wants whole prompts
    modes.push_back({std::string(preset), RecallMode::kOff, PrefillMode::kChunked});
    modes.push_back({std::string(preset), RecallMode::kSync, PrefillMode::kChunked});
  }
  modes.push_back({"snapkv", RecallMode::kSync, PrefillMode::kWhole, RecallIndex::kPq16x4});
  modes.push_back({"snapkv", RecallMode::kSync, PrefillMode::kChunked, RecallIndex::kPq16x4});
  modes.push_back({"h2o", RecallMode::kSync, PrefillMode::kWhole, RecallIndex::kPq8x8});
  modes.push_back({"streaming", RecallMode::kSync, PrefillMode::kWhole, RecallIndex::kPage16});
  modes.push_back({.preset = "snapkv", .recall = RecallMode::kSync, .scope = SelectScope::kLayer});
  modes.push_back(
      {.preset = "h2o", .recall = RecallMode::kSync, .index = RecallIndex::kPq16x4, .scope = SelectScope::kFilter});
  for (KvPrecision precision : {KvPrecision::kInt8, KvPrecision::kKivi4, KvPrecision::kKivi2}) {
    modes.push_back({"full", RecallMode::kOff, PrefillMode::kWhole, RecallIndex::kK4, precision});
    modes.push_back({"snapkv", RecallMode::kOff, PrefillMode::kChunked, RecallIndex::kK4, precision});
    modes.push_back({"h2o", RecallMode::kOff, PrefillMode::kWhole, RecallIndex::kK4, precision});  // leaves holes
    modes.push_back({"d2o", RecallMode::kSync, PrefillMode::kWhole, RecallIndex::kK4, precision});
    modes.push_back({"ahakv", RecallMode::kSync, PrefillMode::kWhole, RecallIndex::kK4, precision});
  }
  return modes;
}

std::string PrecisionName(KvPrecision precision) {
  switch (precision) {
    case KvPrecision::kF16: return "";
    case KvPrecision::kInt8: return "_int8";
    case KvPrecision::kKivi4: return "_kivi4";
    case KvPrecision::kKivi2: return "_kivi2";
  }
  return "";
}

std::string IndexName(RecallIndex index) {
  switch (index) {
    case RecallIndex::kPq16x4: return "_pq16x4";
    case RecallIndex::kPq8x8: return "_pq8x8";
    case RecallIndex::kPage16: return "_page16";
    default: return "";
  }
}

std::string ScopeName(SelectScope scope) {
  return scope == SelectScope::kHead ? "" : scope == SelectScope::kLayer ? "_layer" : "_filter";
}

INSTANTIATE_TEST_SUITE_P(Presets, SessionTest, testing::ValuesIn(Modes()),
                         [](const testing::TestParamInfo<Mode>& info) {
                           std::string name = info.param.preset +
                                              (info.param.recall == RecallMode::kOff ? "" : "_sync") +
                                              (info.param.prefill == PrefillMode::kWhole ? "" : "_chunked") +
                                              IndexName(info.param.index) + PrecisionName(info.param.precision) +
                                              ScopeName(info.param.scope);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(RecallTest, WithSlotsForEverythingTheLogitsAreThoseOfTheFullCache) {
  for (std::string_view name : PresetNames()) {
    // d2o leaves mixtures in place of rows, simlayerkv has not cut anything before it decodes.
    if (name == "full" || name == "d2o" || name == "simlayerkv") continue;
    const std::string preset(name);
    CompressionSpec everything = Spec(preset, RecallMode::kSync);
    everything.budget_tokens = 100'075;  // 75 kept rows
    everything.recall.rows = 100'000;
    std::vector<std::vector<float>> logprobs;
    for (const CompressionSpec& spec : {CompressionSpec(), everything}) {
      Worker worker;
      ASSERT_TRUE(RunRequest(worker.engine(), Turn("s", spec, RandomTokens(300, 1), 0)).result.status.ok());
      GenerationRequest next = Turn("s", spec, RandomTokens(20, 2), 0);
      next.forced_tokens = RandomTokens(40, 3);
      const Answer answer = RunRequest(worker.engine(), next);
      ASSERT_TRUE(answer.result.status.ok()) << answer.result.status;
      if (spec.preset != "full") {
        EXPECT_GT(answer.result.usage.recalled_rows, 0);
      }
      logprobs.push_back(Logprobs(answer));
    }
    EXPECT_EQ(logprobs[0], logprobs[1]) << preset << ": bit for bit";
  }
}

TEST(RecallTest, LostBlocksAreReported) {
  Worker worker;
  CompressionSpec spec = Spec("snapkv", RecallMode::kSync);
  ASSERT_TRUE(RunRequest(worker.engine(), Turn("s", spec, RandomTokens(200, 1), 0)).result.status.ok());
  // The session's blocks vanish: a resumed session is computed again from its tokens.
  auto manifest = *worker.cache().manifests()->Get("default", "s", absl::Now() + absl::Seconds(5));
  ASSERT_TRUE(manifest.has_value());
  manifest->block_keys[1].bytes[0] ^= 1;  // a key that nobody stored
  manifest->revision = 2;
  ASSERT_TRUE(worker.cache().manifests()->Put(*manifest, absl::Now() + absl::Seconds(5)).ok());
  const Answer answer = RunRequest(worker.engine(), Turn("s", spec, RandomTokens(5, 2), 4));
  ASSERT_TRUE(answer.result.status.ok()) << answer.result.status;
  EXPECT_EQ(answer.result.usage.cached_prompt_tokens, 0);
  EXPECT_EQ(answer.result.usage.prompt_tokens, 205);
}

TEST(PrefixTest, AStoredPrefixIsReusedAndChangesNoBit) {
  for (const std::string preset : {"full", "snapkv", "streaming"}) {
    const CompressionSpec spec = preset == "full" ? CompressionSpec() : Spec(preset, RecallMode::kOff);
    Worker worker;
    std::vector<int32_t> prompt = RandomTokens(200, 4);
    const Answer first = RunRequest(worker.engine(), Turn("", spec, prompt, 10));
    ASSERT_TRUE(first.result.status.ok()) << first.result.status;
    worker.Restart();  // everything offloaded is stored
    const Answer second = RunRequest(worker.engine(), Turn("", spec, prompt, 10));
    EXPECT_EQ(second.result.usage.cached_prompt_tokens, 192);
    EXPECT_EQ(second.tokens, first.tokens);
    EXPECT_EQ(Logprobs(second), Logprobs(first));
    GenerationRequest fresh = Turn("", spec, prompt, 10);
    fresh.reuse_prefix = false;
    EXPECT_EQ(RunRequest(worker.engine(), fresh).result.usage.cached_prompt_tokens, 0);
  }
}

TEST(PrefixTest, TablesAreLearntFromTheSameRowsWhateverWasStored) {
  CompressionSpec spec = Spec("snapkv", RecallMode::kSync);
  spec.recall.index = RecallIndex::kPq16x4;
  spec.recall.shortlist = 0;  // the codes alone choose
  Worker worker;
  const std::vector<int32_t> prompt = RandomTokens(330, 4);
  const Answer first = RunRequest(worker.engine(), Turn("", spec, prompt, 10));
  ASSERT_TRUE(first.result.status.ok()) << first.result.status;
  worker.Restart();
  const Answer second = RunRequest(worker.engine(), Turn("", spec, prompt, 10));
  EXPECT_EQ(second.result.usage.cached_prompt_tokens, 256);
  EXPECT_GT(second.result.usage.recalled_rows, 0);
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(Logprobs(second), Logprobs(first));
}

TEST(RecallTest, AnIndexOnTheDeviceCountsInTheBudget) {
  CompressionSpec spec = Spec("snapkv", RecallMode::kSync);
  spec.recall.index = RecallIndex::kPq16x4;
  std::vector<int64_t> resident;
  for (const IndexPlacement placement : {IndexPlacement::kHost, IndexPlacement::kDevice}) {
    spec.recall.placement = placement;
    Worker worker;
    const Answer answer = RunRequest(worker.engine(), Turn("", spec, RandomTokens(400, 4), 10));
    ASSERT_TRUE(answer.result.status.ok()) << answer.result.status;
    EXPECT_EQ(answer.result.usage.index_on_device, placement == IndexPlacement::kDevice);
    EXPECT_GT(answer.result.usage.index_bytes, 0);
    resident.push_back(answer.result.usage.resident_rows);
  }
  EXPECT_LT(resident[1], resident[0]);
}

TEST(RecallTest, ByCosineASessionGoesOnAtAWorkerThatStartedAnew) {
  CompressionSpec spec = Spec("snapkv", RecallMode::kAsync);
  spec.recall.trigger = RecallTrigger::kCosine;
  Worker worker;
  for (int turn = 0; turn < 3; ++turn) {
    if (turn > 0) worker.Restart();
    const Answer answer = RunRequest(worker.engine(), Turn("s", spec, RandomTokens(turn == 0 ? 300 : 6, turn), 20));
    ASSERT_TRUE(answer.result.status.ok()) << answer.result.status;
    if (turn > 0) {
      EXPECT_GT(answer.result.usage.recalled_rows, 0);
    }
  }
}

TEST(SessionErrorsTest, AreNamed) {
  Worker worker;
  const CompressionSpec spec = Spec("snapkv", RecallMode::kSync);
  ASSERT_TRUE(RunRequest(worker.engine(), Turn("s", spec, RandomTokens(100, 1), 2)).result.status.ok());
  const Answer other = RunRequest(worker.engine(), Turn("s", Spec("h2o", RecallMode::kOff), RandomTokens(5, 1), 2));
  EXPECT_THAT(std::string(other.result.status.message()), HasSubstr("compression"));
  const Answer empty = RunRequest(worker.engine(), Turn("new", spec, {}, 2));
  EXPECT_THAT(std::string(empty.result.status.message()), HasSubstr("prompt"));
  CompressionSpec keep;
  keep.preset.clear();
  EXPECT_TRUE(RunRequest(worker.engine(), Turn("s", keep, RandomTokens(5, 1), 2)).result.status.ok());
}

}  // namespace
}  // namespace tidepool
