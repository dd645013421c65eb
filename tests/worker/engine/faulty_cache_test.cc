// Sessions and recall over a cache service that is slow, silent, forgetful or cut short: real storage behind a wrapper
// that misbehaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

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
using test::Collector;
using test::RunRequest;
using testing::HasSubstr;

std::shared_ptr<const Model> TinyModel() {
  static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  return model;
}

// Passes everything on to the storage, unless told otherwise.
class FaultyCache : public BlockCache {
 public:
  explicit FaultyCache(BlockCache* storage) : storage_(storage) {}

  absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) override {
    return storage_->LookupPrefix(chain, terms);
  }
  void Offload(BlockId id, std::string value, OffloadOptions options, std::function<void(absl::Status)> done) override {
    {
      MutexLock lock(&mutex_);
      if (hold_acknowledgements) {
        held_.push_back([this, id, value = std::move(value), options, done = std::move(done)]() mutable {
          storage_->Offload(id, std::move(value), options, std::move(done));
        });
        return;
      }
    }
    if (refuse_blocks) return done(absl::ResourceExhaustedError("the disk is full"));
    storage_->Offload(id, std::move(value), options, std::move(done));
  }
  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done) override {
    ++recalls;
    if (never_answer) {
      MutexLock lock(&mutex_);
      held_.push_back([done = std::move(done)] { done(absl::UnavailableError("too late to matter")); });
      return;
    }
    if (forget || cut_short || (forget_times > 0 && forget_times-- > 0)) {
      RecalledRows nothing;
      nothing.found.assign(selections.size(), 0);
      nothing.complete = !cut_short;
      return done(std::move(nothing));
    }
    storage_->Recall(std::move(selections), deadline, std::move(done));
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      const ReadTerms& terms) override {
    return storage_->FetchBlocks(ids, terms);
  }
  BlockCacheStats Stats() const override { return storage_->Stats(); }

  void Release() {
    std::vector<std::function<void()>> held;
    {
      MutexLock lock(&mutex_);
      hold_acknowledgements = false;
      held.swap(held_);
    }
    for (std::function<void()>& job : held) job();
  }

  std::atomic<bool> hold_acknowledgements{false}, refuse_blocks{false}, never_answer{false}, forget{false},
      cut_short{false};
  std::atomic<int> recalls{0}, forget_times{0};

 private:
  BlockCache* const storage_;
  Mutex mutex_;
  std::vector<std::function<void()>> held_ ABSL_GUARDED_BY(mutex_);
};

class FaultyCacheTest : public testing::Test {
 protected:
  FaultyCacheTest() {
    CacheOptions options;
    options.data_dir = dir_.path();
    KvLayout layout;
    layout.model_fingerprint = TinyModel()->fingerprint();
    layout.layers = TinyModel()->config().layers;
    layout.kv_heads = TinyModel()->config().kv_heads;
    layout.head_dim = TinyModel()->config().head_dim;
    auto storage = EmbeddedCache::Open(options, layout);
    if (!storage.ok()) throw std::runtime_error(std::string(storage.status().message()));
    storage_ = *std::move(storage);
    cache_ = std::make_unique<FaultyCache>(storage_.get());
    engine_options_.device_kv_bytes = size_t{64} << 20;
    engine_options_.prefill_chunk_tokens = 64;
  }
  ~FaultyCacheTest() override {
    cache_->Release();
    engines_.clear();
  }
  Engine& Start() {
    engines_.push_back(*Engine::Create(engine_options_, TinyModel(), cache_.get(), storage_->manifests()));
    return *engines_.back();
  }

  test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> storage_;
  std::unique_ptr<FaultyCache> cache_;
  EngineOptions engine_options_;
  std::vector<std::unique_ptr<Engine>> engines_;
};

std::vector<int32_t> RandomTokens(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % TinyModel()->config().vocabulary);
  return tokens;
}

CompressionSpec Spec(const std::string& preset, RecallMode mode) {
  CompressionSpec spec = *PresetSpec(preset);
  spec.budget_fraction = 0.25;
  spec.window_tokens = 8;
  spec.recall.mode = mode;
  return spec;
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

std::vector<float> Logprobs(const Answer& answer) {
  std::vector<float> values;
  for (const TokenLogprob& l : answer.logprobs) values.push_back(l.logprob);
  return values;
}

TEST_F(FaultyCacheTest, BlocksThatAreNotAcknowledgedYetAreNotAskedOfTheService) {
  Engine& engine = Start();
  for (const RecallMode mode : {RecallMode::kAsync, RecallMode::kSync}) {
    cache_->hold_acknowledgements = true;
    const unsigned seed = mode == RecallMode::kAsync ? 1 : 2;  // another prompt, not a stored prefix
    const Answer answer = RunRequest(engine, Turn("", Spec("streaming", mode), RandomTokens(300, seed), 60));
    ASSERT_EQ(answer.result.status, absl::OkStatus());
    EXPECT_GT(answer.result.usage.recalled_rows, 0) << "from the worker's own memory";
    EXPECT_EQ(cache_->recalls, 0);
    EXPECT_EQ(answer.result.usage.lost_rows, 0);
    EXPECT_FALSE(answer.result.usage.degraded);
    cache_->Release();
  }
}

TEST_F(FaultyCacheTest, RowsThatAnAsynchronousStepMissesFailTheRequestThatAskedForThat) {
  Engine& engine = Start();
  CompressionSpec spec = Spec("snapkv", RecallMode::kAsync);
  spec.recall.on_loss = OnRecallLoss::kFail;
  cache_->forget = true;
  // Whether a step wants a row before its block is known to be lost is a matter of time: other prompts, until one does.
  auto run = [&](unsigned seed) {
    Answer answer;
    for (int i = 0; i < 50 && answer.result.usage.lost_rows == 0; ++i, ++seed) {
      answer = RunRequest(engine, Turn("", spec, RandomTokens(300, seed), 60));
    }
    return answer;
  };
  const Answer failed = run(1);
  EXPECT_EQ(failed.result.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(failed.result.status.message()), HasSubstr("not stored"));
  spec.recall.on_loss = OnRecallLoss::kContinue;
  const Answer degraded = run(100);
  EXPECT_EQ(degraded.result.status, absl::OkStatus());
  EXPECT_GT(degraded.result.usage.lost_rows, 0);
  EXPECT_TRUE(degraded.result.usage.degraded);
  const EngineStats stats = engine.Stats();
  int64_t lost = 0;
  for (const RecallMeter::Group& group : stats.policies[0].recall.groups) lost += group.lost_rows;
  EXPECT_EQ(lost, failed.result.usage.lost_rows + degraded.result.usage.lost_rows);
  EXPECT_EQ(stats.requests_degraded, 1);
}

TEST_F(FaultyCacheTest, WhatIsLostIsComputedAgainForWhoAskedForThatAndTheAnswerIsTheSame) {
  Engine& engine = Start();
  CompressionSpec spec = Spec("snapkv", RecallMode::kSync);
  spec.recall.on_loss = OnRecallLoss::kRecompute;
  GenerationRequest request = Turn("", spec, RandomTokens(300, 1), 40);
  request.sampling.temperature = 0.8F;  // its random numbers go on where they were
  request.sampling.seed = 7;
  // Until its blocks are acknowledged rows are the worker's own: once more, by the stored prefix, then they are not.
  Answer calm;
  for (int i = 0; i < 50 && cache_->recalls == 0; ++i) calm = RunRequest(engine, request);
  ASSERT_EQ(calm.result.status, absl::OkStatus());
  EXPECT_EQ(calm.result.usage.recomputations, 0);
  ASSERT_GT(cache_->recalls, 0);

  for (const int after : {1, 10, 25}) {
    auto sink = std::make_shared<Collector>();
    sink->set_on_token([&](int tokens) {
      if (tokens == after) cache_->forget_times = 1;
    });
    ASSERT_TRUE(engine.Submit(request, sink).ok());
    const GenerationResult lost = sink->Wait();
    ASSERT_EQ(lost.status, absl::OkStatus());
    EXPECT_EQ(lost.usage.recomputations, 1) << after;
    EXPECT_EQ(sink->tokens(), calm.tokens) << after;
    EXPECT_EQ(sink->text(), calm.text) << after;
    Answer answer;
    answer.logprobs = sink->logprobs();
    EXPECT_EQ(Logprobs(answer), Logprobs(calm)) << after;
    EXPECT_EQ(lost.usage.generated_tokens, 40);
    EXPECT_FALSE(lost.usage.degraded);
  }
}

TEST_F(FaultyCacheTest, ATurnWhoseRowsAreLostGoesOnFromTheTokensOfItsSession) {
  Engine& engine = Start();
  CompressionSpec spec = Spec("streaming", RecallMode::kSync);
  spec.recall.on_loss = OnRecallLoss::kRecompute;
  for (const std::string session : {"calm", "lost"}) {
    ASSERT_EQ(RunRequest(engine, Turn(session, spec, RandomTokens(300, 1), 5)).result.status, absl::OkStatus());
  }
  const Answer calm = RunRequest(engine, Turn("calm", spec, RandomTokens(20, 2), 30));
  ASSERT_EQ(calm.result.status, absl::OkStatus());
  cache_->forget_times = 1;
  const Answer lost = RunRequest(engine, Turn("lost", spec, RandomTokens(20, 2), 30));
  ASSERT_EQ(lost.result.status, absl::OkStatus());
  EXPECT_EQ(lost.result.usage.recomputations, 1);
  EXPECT_EQ(lost.result.usage.prompt_tokens, calm.result.usage.prompt_tokens);
  EXPECT_EQ(lost.result.usage.cached_prompt_tokens, 0);
  EXPECT_EQ(lost.result.session_turns, 2);
  EXPECT_EQ(lost.tokens.size(), 30);
  const Answer next = RunRequest(engine, Turn("lost", spec, RandomTokens(5, 3), 5));
  EXPECT_EQ(next.result.status, absl::OkStatus());
  EXPECT_EQ(next.result.usage.prompt_tokens, lost.result.usage.prompt_tokens + 30 + 5);
}

TEST_F(FaultyCacheTest, RowsThatAreLostAgainAndAgainEndTheRequest) {
  Engine& engine = Start();
  CompressionSpec spec = Spec("streaming", RecallMode::kSync);
  spec.recall.on_loss = OnRecallLoss::kRecompute;
  cache_->forget = true;
  // Long enough for blocks to be acknowledged while it goes on, however fast: until then rows are the worker's own.
  const Answer failed = RunRequest(engine, Turn("", spec, RandomTokens(300, 1), 1600));
  EXPECT_EQ(failed.result.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(failed.result.usage.recomputations, 5);
  cache_->forget = false;
  EXPECT_EQ(RunRequest(engine, Turn("", spec, RandomTokens(300, 1), 40)).result.status, absl::OkStatus());
}

TEST_F(FaultyCacheTest, AnAnswerCutShortLosesNoBlockForGood) {
  Engine& engine = Start();
  const CompressionSpec spec = Spec("snapkv", RecallMode::kSync);
  ASSERT_EQ(RunRequest(engine, Turn("s", spec, RandomTokens(300, 1), 0)).result.status, absl::OkStatus());
  cache_->cut_short = true;
  const Answer cut = RunRequest(engine, Turn("s", spec, RandomTokens(5, 2), 2));
  EXPECT_GT(cut.result.usage.lost_rows, 0);
  cache_->cut_short = false;
  const Answer whole = RunRequest(engine, Turn("s", spec, RandomTokens(5, 3), 2));
  EXPECT_GT(whole.result.usage.recalled_rows, 0) << "asked for again";
  EXPECT_EQ(whole.result.usage.lost_rows, 0);
}

// What the answer reads next lies behind what its question finds: without these rows needles are found a step late.
TEST_F(FaultyCacheTest, APromptsStepsThatWaitForRowsFetchOthersAheadWhenTheAnswerWaitsForNone) {
  Engine& engine = Start();
  int recalls[2] = {};
  for (const RecallMode mode : {RecallMode::kSync, RecallMode::kAsync}) {
    const std::string session = mode == RecallMode::kSync ? "waits" : "passes";
    const CompressionSpec spec = Spec("snapkv", mode);
    ASSERT_EQ(RunRequest(engine, Turn(session, spec, RandomTokens(300, 1), 0)).result.status, absl::OkStatus());
    cache_->recalls = 0;
    ASSERT_EQ(RunRequest(engine, Turn(session, spec, RandomTokens(1, 2), 0)).result.status, absl::OkStatus());
    recalls[mode == RecallMode::kAsync] = cache_->recalls;
  }
  EXPECT_GT(recalls[0], 0);
  EXPECT_GT(recalls[1], recalls[0]);
}

TEST_F(FaultyCacheTest, ASilentServiceIsWaitedForOnceAndNotAtEveryLayerOfEveryToken) {
  engine_options_.recall_deadline = absl::Milliseconds(20);
  Engine& engine = Start();
  const CompressionSpec spec = Spec("snapkv", RecallMode::kSync);
  ASSERT_EQ(RunRequest(engine, Turn("s", spec, RandomTokens(300, 1), 0)).result.status, absl::OkStatus());
  cache_->never_answer = true;
  const Answer answer = RunRequest(engine, Turn("s", spec, RandomTokens(20, 2), 20));
  EXPECT_EQ(answer.result.status, absl::OkStatus());
  EXPECT_TRUE(answer.result.usage.degraded);
  EXPECT_GT(cache_->recalls, 0);
  EXPECT_LT(cache_->recalls, 39 / 2) << "39 steps of several layers";
  const EngineStats stats = engine.Stats();
  EXPECT_EQ(stats.recalls.sync.late, cache_->recalls);
  EXPECT_EQ(stats.recalls.sync.answered, stats.recalls.sync.seconds.count());
}

TEST_F(FaultyCacheTest, AServiceThatLeavesAsynchronousRequestsUnansweredIsLeftAlone) {
  engine_options_.recall_deadline = absl::Milliseconds(20);  // of the prompt's step
  Engine& engine = Start();
  CompressionSpec spec = Spec("snapkv", RecallMode::kAsync);
  spec.recall.budget_ms = 1;
  spec.recall.interval = 1;
  ASSERT_EQ(RunRequest(engine, Turn("s", spec, RandomTokens(300, 1), 0)).result.status, absl::OkStatus());
  cache_->never_answer = true;
  constexpr int kTokens = 200;
  const Answer answer = RunRequest(engine, Turn("s", spec, RandomTokens(1, 2), kTokens));
  EXPECT_EQ(answer.result.status, absl::OkStatus());
  EXPECT_GT(answer.result.usage.late_rows, 0);
  EXPECT_GE(engine.Stats().recalls.async.late, 8);
  EXPECT_LT(cache_->recalls, kTokens / 2);
}

TEST_F(FaultyCacheTest, ASessionOutlivesBlocksThatCouldNotBeStored) {
  Engine& engine = Start();
  const std::vector<int32_t> context = RandomTokens(200, 1), question = RandomTokens(5, 2);
  cache_->refuse_blocks = true;
  ASSERT_EQ(RunRequest(engine, Turn("s", {}, context, 3)).result.status, absl::OkStatus());
  cache_->refuse_blocks = false;
  const Answer next = RunRequest(Start(), Turn("s", {}, question, 3));  // another worker
  EXPECT_EQ(next.result.status, absl::OkStatus());
  EXPECT_EQ(next.result.usage.prompt_tokens, 208);
  EXPECT_EQ(next.result.usage.cached_prompt_tokens, 0) << "computed again";
}

TEST_F(FaultyCacheTest, ADamagedEngineStateCostsTimeNotTheSession) {
  const CompressionSpec spec = Spec("snapkv", RecallMode::kSync);
  ASSERT_EQ(RunRequest(Start(), Turn("s", spec, RandomTokens(200, 1), 0)).result.status, absl::OkStatus());
  const SessionManifest good = **storage_->manifests()->Get("default", "s", absl::InfiniteFuture());
  int64_t revision = good.revision;
  for (const size_t size : {size_t{0}, size_t{3}, good.engine_state.size() / 2, good.engine_state.size() - 1}) {
    SessionManifest damaged = good;
    damaged.engine_state.resize(size);
    damaged.revision = ++revision;
    ASSERT_EQ(storage_->manifests()->Put(damaged, absl::InfiniteFuture()), absl::OkStatus());
    CompressionSpec keep;
    keep.preset.clear();
    const Answer answer = RunRequest(Start(), Turn("s", keep, RandomTokens(5, 2), 2));
    ++revision;
    EXPECT_EQ(answer.result.status, absl::OkStatus()) << size;
    EXPECT_EQ(answer.result.usage.prompt_tokens, 205);
    EXPECT_EQ(answer.result.usage.cached_prompt_tokens, 0);
    EXPECT_LT(answer.result.usage.resident_rows, answer.result.usage.context_tokens * 4) << "compressed again";
  }
}

TEST_F(FaultyCacheTest, AWorkerDoesNotGoOnWithASessionThatAnotherOneHasReplaced) {
  Engine& here = Start();
  Engine& there = Start();
  ASSERT_EQ(RunRequest(here, Turn("s", {}, RandomTokens(80, 1), 2)).result.status, absl::OkStatus());
  absl::Status ended = absl::UnknownError("");
  {
    Mutex mutex;
    CondVar changed;
    bool done = false;
    there.EndSession({"s"}, [&](absl::Status status) {
      MutexLock lock(&mutex);
      ended = std::move(status);
      done = true;
      changed.SignalAll();
    });
    MutexLock lock(&mutex);
    while (!done) changed.Wait(&mutex);
  }
  ASSERT_EQ(ended, absl::OkStatus());
  ASSERT_EQ(RunRequest(there, Turn("s", {}, RandomTokens(30, 2), 2)).result.status, absl::OkStatus());
  const Answer next = RunRequest(here, Turn("s", {}, RandomTokens(5, 3), 2));  // of the same revision as its own
  EXPECT_EQ(next.result.status, absl::OkStatus());
  EXPECT_EQ(next.result.usage.prompt_tokens, 30 + 2 + 5);
}

TEST_F(FaultyCacheTest, ATurnAfterAnEndBelongsToANewSession) {
  Engine& engine = Start();
  auto first = std::make_shared<Collector>(), second = std::make_shared<Collector>();
  std::atomic<bool> ended{false};
  first->set_on_token([&](int tokens) {
    if (tokens != 1) return;
    engine.EndSession({"s"}, [&](const absl::Status&) { ended = true; });
    EXPECT_TRUE(engine.Submit(Turn("s", {}, RandomTokens(30, 2), 3), second).ok());
  });
  ASSERT_TRUE(engine.Submit(Turn("s", {}, RandomTokens(80, 1), 10), first).ok());
  EXPECT_EQ(first->Wait().status, absl::OkStatus());
  const GenerationResult result = second->Wait();
  EXPECT_EQ(result.status, absl::OkStatus());
  EXPECT_EQ(result.usage.prompt_tokens, 30);
  EXPECT_TRUE(ended);
  EXPECT_TRUE(storage_->manifests()->Get("default", "s", absl::InfiniteFuture())->has_value()) << "the new one stays";
}

TEST_F(FaultyCacheTest, RowsThatGrewWhileDecodingHaveTheirPagesWhenTheSessionGoesOn) {
  // snapkv keeps what it generates: after 200 tokens a head holds more than its budget. 300 rows of each head fit; the
  // session's 230 and the other request's 201 do not fit together, so one of them waits.
  const ModelConfig& config = TinyModel()->config();
  engine_options_.device_kv_bytes = size_t{300} * config.layers * config.kv_heads * 2 * config.head_dim * 2;
  Engine& engine = Start();
  const CompressionSpec spec = Spec("snapkv", RecallMode::kOff);
  ASSERT_EQ(RunRequest(engine, Turn("s", spec, RandomTokens(40, 1), 200)).result.status, absl::OkStatus());
  auto other = std::make_shared<Collector>(), next = std::make_shared<Collector>();
  ASSERT_TRUE(engine.Submit(Turn("", {}, RandomTokens(1, 2), 200), other).ok());
  ASSERT_TRUE(engine.Submit(Turn("s", spec, RandomTokens(10, 3), 16), next).ok());
  EXPECT_EQ(other->Wait().status, absl::OkStatus());
  EXPECT_EQ(next->Wait().status, absl::OkStatus());
}

TEST_F(FaultyCacheTest, RecallBeginsWithTheFirstEvictionAlsoWhenItIsADecodingStep) {
  Engine& engine = Start();
  CompressionSpec spec = Spec("streaming", RecallMode::kSync);
  spec.budget_fraction = 0;
  spec.budget_tokens = 100'032;  // 32 kept rows
  spec.recall.rows = 100'000;
  std::vector<std::vector<float>> logprobs;
  for (const CompressionSpec& one : {CompressionSpec(), spec}) {
    GenerationRequest request = Turn("", one, RandomTokens(20, 1), 0);
    request.forced_tokens = RandomTokens(150, 2);
    const Answer answer = RunRequest(engine, request);
    ASSERT_EQ(answer.result.status, absl::OkStatus());
    logprobs.push_back(Logprobs(answer));
  }
  EXPECT_EQ(logprobs[0], logprobs[1]) << "everything is recalled: bit for bit";
}

TEST_F(FaultyCacheTest, EachTurnReportsItsOwnUsage) {
  Engine& engine = Start();
  const CompressionSpec spec = Spec("snapkv", RecallMode::kOff);
  const Answer first = RunRequest(engine, Turn("s", spec, RandomTokens(400, 1), 2));
  const Answer second = RunRequest(engine, Turn("s", spec, RandomTokens(5, 2), 2));
  ASSERT_EQ(second.result.status, absl::OkStatus());
  EXPECT_LT(second.result.usage.peak_kv_bytes, first.result.usage.peak_kv_bytes / 2);
  EXPECT_LT(second.result.usage.offloaded_bytes, first.result.usage.offloaded_bytes);
}

}  // namespace
}  // namespace tidepool
