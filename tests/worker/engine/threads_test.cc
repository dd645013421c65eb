// Answers are the same bits for any number of threads: attention in parts, policies on layers side by side, recall
// beside the attention of other heads.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

struct Bits {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  int64_t evicted = 0, merged = 0, recalled = 0;
  friend bool operator==(const Bits&, const Bits&) = default;
};

// Two turns of a session, the second one with recall of what the first one evicted.
Bits TwoTurns(int threads, const std::string& preset, RecallMode recall) {
  static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f16.gguf"));
  test::TempDir dir;
  CacheOptions cache_options;
  cache_options.data_dir = dir.path();
  auto cache = *EmbeddedCache::Open(cache_options, LayoutOf(*model, KvType::kF16));
  EngineOptions options;
  options.threads = threads;
  options.device_kv_bytes = size_t{64} << 20;
  auto engine = *Engine::Create(options, model, cache.get(), cache->manifests());
  std::mt19937 random(11);
  Bits bits;
  for (const int tokens : {400, 9}) {
    GenerationRequest request;
    request.session_id = "s";
    request.compression = *PresetSpec(preset);
    request.compression.budget_fraction = 0.5;
    request.compression.dense_layers_override = true;
    request.compression.recall.mode = recall;
    // Some selections go by sums of the steps before them.
    request.compression.window_tokens = request.compression.decode_interval = 8;
    for (int i = 0; i < tokens; ++i)
      request.prompt.push_back(static_cast<int32_t>(random() % model->config().vocabulary));
    request.stop.max_tokens = 24;
    request.stop.ignore_eos = true;
    request.logprobs = 0;
    const test::Answer answer = test::RunRequest(*engine, std::move(request));
    EXPECT_TRUE(answer.result.status.ok()) << answer.result.status;
    bits.tokens.insert(bits.tokens.end(), answer.tokens.begin(), answer.tokens.end());
    for (const TokenLogprob& l : answer.logprobs) bits.logprobs.push_back(l.logprob);
    bits.evicted += answer.result.usage.evicted_rows;
    bits.merged += answer.result.usage.merged_rows;
    bits.recalled += answer.result.usage.recalled_rows;
  }
  return bits;
}

class ThreadsTest : public testing::TestWithParam<std::pair<const char*, RecallMode>> {};

TEST_P(ThreadsTest, TheirNumberChangesNothing) {
  const auto& [preset, recall] = GetParam();
  const Bits one = TwoTurns(1, preset, recall);
  EXPECT_EQ(one.tokens.size(), 48u);
  if (std::string(preset) != "full") {
    EXPECT_GT(one.evicted, 0);
  }
  EXPECT_EQ(one.recalled > 0, recall == RecallMode::kSync);
  for (const int threads : {2, 3, 4}) EXPECT_TRUE(TwoTurns(threads, preset, recall) == one) << threads << " threads";
}

INSTANTIATE_TEST_SUITE_P(Presets, ThreadsTest,
                         testing::Values(std::pair("full", RecallMode::kOff), std::pair("h2o", RecallMode::kOff),
                                         std::pair("d2o", RecallMode::kOff), std::pair("d2o", RecallMode::kSync),
                                         std::pair("ada-snapkv", RecallMode::kSync),
                                         std::pair("tova", RecallMode::kOff)),
                         [](const auto& info) {
                           std::string name = info.param.first;
                           std::erase(name, '-');
                           return name + (info.param.second == RecallMode::kSync ? "Sync" : "Off");
                         });

}  // namespace
}  // namespace tidepool
