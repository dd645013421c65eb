// What an engine counts, over requests whose usage says the same: times, ends, tokens, and by policy what recall did.
#include "worker/engine/engine_meter.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using test::Answer;
using test::RunRequest;

class EngineMeterTest : public testing::Test {
 protected:
  EngineMeterTest() {
    CacheOptions options;
    options.data_dir = dir_.path();
    cache_ = *EmbeddedCache::Open(options, LayoutOf(*model_, KvType::kF16));
    EngineOptions engine;
    engine.device_kv_bytes = size_t{64} << 20;
    engine.prefill_chunk_tokens = 64;
    engine_ = *Engine::Create(engine, model_, cache_.get(), cache_->manifests());
  }

  GenerationRequest Request(const std::string& preset, RecallMode recall, int prompt_tokens, int max_tokens,
                            const std::string& session = "") {
    GenerationRequest request;
    std::mt19937 random(++seed_);
    request.prompt.resize(prompt_tokens);
    for (int32_t& token : request.prompt) token = static_cast<int32_t>(random() % model_->config().vocabulary);
    request.compression = *PresetSpec(preset);
    if (preset != "full") request.compression.budget_fraction = 0.25;
    request.compression.window_tokens = 8;
    request.compression.recall.mode = recall;
    request.session_id = session;
    request.stop.max_tokens = max_tokens;
    request.stop.ignore_eos = true;
    return request;
  }
  static const PolicyStats& Of(const EngineStats& stats, const std::string& policy) {
    for (const PolicyStats& of : stats.policies) {
      if (of.policy == policy) return of;
    }
    throw std::runtime_error("no stats of " + policy);
  }

  test::TempDir dir_;
  const std::shared_ptr<const Model> model_ = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  std::unique_ptr<EmbeddedCache> cache_;
  std::unique_ptr<Engine> engine_;
  unsigned seed_ = 0;
};

TEST_F(EngineMeterTest, EachRequestIsInEachOfItsTimesOnceAndEachPairOfTokensIsCounted) {
  ASSERT_TRUE(RunRequest(*engine_, Request("full", RecallMode::kOff, 70, 5)).result.status.ok());
  ASSERT_TRUE(RunRequest(*engine_, Request("full", RecallMode::kOff, 10, 1)).result.status.ok());
  ASSERT_TRUE(RunRequest(*engine_, Request("full", RecallMode::kOff, 10, 0)).result.status.ok());
  GenerationRequest late = Request("full", RecallMode::kOff, 10, 5);
  late.deadline = absl::Now() - absl::Seconds(1);
  EXPECT_EQ(RunRequest(*engine_, late).result.reason, FinishReason::kDeadline);
  const EngineStats stats = engine_->Stats();
  EXPECT_EQ(stats.times.queue.count(), 3);
  EXPECT_EQ(stats.times.first_token.count(), 2);
  EXPECT_EQ(stats.times.prefill.count(), 2);
  EXPECT_EQ(stats.times.between_tokens.count(), 4);
  EXPECT_EQ(stats.times.decode.count(), 2);
  EXPECT_EQ(stats.times.total.count(), 4);
  EXPECT_NEAR(stats.times.decode.sum(), stats.times.between_tokens.sum(), 1e-6);
  EXPECT_NEAR(stats.times.first_token.sum(), stats.times.prefill.sum() + stats.times.queue.sum(),
              stats.times.queue.sum())
      << "the request without a token has waited, too";
  EXPECT_EQ(stats.ended[static_cast<size_t>(FinishReason::kLength)], 3);
  EXPECT_EQ(stats.ended[static_cast<size_t>(FinishReason::kDeadline)], 1);
  EXPECT_EQ(std::accumulate(stats.ended.begin(), stats.ended.end(), int64_t{0}),
            stats.requests_finished() + stats.requests_cancelled());
  EXPECT_EQ(stats.generated_tokens, 6);
}

TEST_F(EngineMeterTest, TokensThatAreNotComputedAgainAreCountedByWhereTheyWere) {
  const GenerationRequest first = Request("full", RecallMode::kOff, 200, 1, "s");
  ASSERT_TRUE(RunRequest(*engine_, first).result.status.ok());
  const Answer resident = RunRequest(*engine_, Request("full", RecallMode::kOff, 5, 1, "s"));
  GenerationRequest same = first;
  same.session_id = "";
  const Answer prefix = RunRequest(*engine_, same);
  const EngineStats stats = engine_->Stats();
  EXPECT_GT(resident.result.usage.cached_prompt_tokens, 0);
  EXPECT_EQ(stats.resident_tokens, resident.result.usage.cached_prompt_tokens);
  EXPECT_GE(prefix.result.usage.cached_prompt_tokens, 128);
  EXPECT_EQ(stats.prefix_tokens, prefix.result.usage.cached_prompt_tokens);
  EXPECT_EQ(stats.restored_tokens, 0);
  EXPECT_EQ(stats.looked_up_tokens, stats.prompt_tokens);
  EXPECT_EQ(stats.cached_prompt_tokens(), stats.resident_tokens + stats.prefix_tokens);
}

TEST_F(EngineMeterTest, PoliciesHaveTheRowsOfTheirRequestsByLayers) {
  const Answer snapkv = RunRequest(*engine_, Request("snapkv", RecallMode::kSync, 300, 20));
  const Answer streaming = RunRequest(*engine_, Request("streaming", RecallMode::kSync, 300, 20));
  const EngineStats stats = engine_->Stats();
  ASSERT_EQ(stats.policies.size(), 2u);
  for (const auto& [policy, answer] : {std::pair("snapkv", snapkv), std::pair("streaming", streaming)}) {
    ASSERT_TRUE(answer.result.status.ok()) << answer.result.status;
    const PolicyStats& of = Of(stats, policy);
    EXPECT_EQ(of.evicted_rows, answer.result.usage.evicted_rows) << policy;
    int64_t recalled = 0;
    for (const RecallMeter::Group& group : of.recall.groups) {
      recalled += group.recalled_rows;
      EXPECT_EQ(group.lost_rows, 0);
      // One observation for each kv head of a layer and each token after the first, whose step is the prompt's.
      EXPECT_EQ(group.evicted_mass.count(), group.dropped_mass.count());
      EXPECT_EQ(group.evicted_mass.count() % (19 * model_->config().kv_heads), 0);
      EXPECT_LE(group.dropped_mass.sum(), group.evicted_mass.sum());
      EXPECT_LE(group.evicted_mass.sum(), static_cast<double>(group.evicted_mass.count()));
    }
    EXPECT_EQ(recalled, answer.result.usage.recalled_rows) << policy;
    EXPECT_GT(recalled, 0);
  }
}

TEST_F(EngineMeterTest, RequestsOfRecallAreCountedByWhetherTheyWaitForThem) {
  // What a session has is acknowledged at its turn's end: the next turn asks the service for it.
  for (const int tokens : {300, 5}) {
    ASSERT_TRUE(RunRequest(*engine_, Request("snapkv", RecallMode::kSync, tokens, 20, "s")).result.status.ok());
  }
  const EngineStats stats = engine_->Stats();
  EXPECT_GT(stats.recalls.sync.answered, 0);
  EXPECT_EQ(stats.recalls.sync.answered, stats.recalls.sync.seconds.count());
  EXPECT_EQ(stats.recalls.async.answered + stats.recalls.async.late, 0);
}

// The less may be recalled, the more attention is dropped: none with a slot for each evicted row, and all of what was
// evicted is the bound.
TEST_F(EngineMeterTest, DroppedAttentionIsWhatRecallHasNoSlotsFor) {
  auto dropped_with = [&](int rows) {
    GenerationRequest request = Request("snapkv", RecallMode::kSync, 300, 20);
    request.compression.recall.rows = rows;
    request.compression.budget_tokens = 75 + rows;
    const std::string name = "snapkv";
    const auto before = engine_->Stats();
    EXPECT_TRUE(RunRequest(*engine_, request).result.status.ok());
    const auto after = engine_->Stats();
    double dropped = 0, evicted = 0;
    int64_t count = 0;
    for (int i = 0; i < kLayerGroups; ++i) {
      const RecallMeter::Group& group = Of(after, name).recall.groups[i];
      dropped += group.dropped_mass.sum();
      evicted += group.evicted_mass.sum();
      count += group.evicted_mass.count();
      for (const PolicyStats& of : before.policies) {
        dropped -= of.recall.groups[i].dropped_mass.sum();
        evicted -= of.recall.groups[i].evicted_mass.sum();
        count -= of.recall.groups[i].evicted_mass.count();
      }
    }
    EXPECT_GT(count, 0);
    EXPECT_GT(evicted, 0.05 * static_cast<double>(count)) << "a random model attends to everything";
    return dropped / evicted;
  };
  const double few = dropped_with(16), half = dropped_with(100), all = dropped_with(100'000);
  EXPECT_GT(few, half);
  EXPECT_GT(half, 0.05);
  EXPECT_LT(few, 1);
  EXPECT_NEAR(all, 0, 1e-4);
}

}  // namespace
}  // namespace tidepool
