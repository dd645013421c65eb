// Whole generations on the `cuda` backend give the `cpu` backend's tokens. On a machine without a GPU its kernels run
// in the emulator; TIDEPOOL_TEST_DEVICE=cuda:0 names a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "cacheservice/embedded/embedded_cache.h"
#include "policies/retain/compression_spec.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/model_oracle/oracle_data.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using test::Answer;
using test::RunRequest;

std::string DeviceUnderTest() {
  const char* name = std::getenv("TIDEPOOL_TEST_DEVICE");
  return std::string(name != nullptr ? name : "emulated");
}

// A worker with its cache in the process.
class Worker {
 public:
  Worker(const std::string& device, std::shared_ptr<const Model> model, bool exact) {
    CacheOptions options;
    options.data_dir = dir_.path();
    cache_ = *EmbeddedCache::Open(options, LayoutOf(*model, KvType::kF16));
    EngineOptions engine;
    engine.device = device;
    engine.device_kv_bytes = size_t{64} << 20;
    engine.prefill_chunk_tokens = 64;
    engine.f32_weights = exact;
    auto made = Engine::Create(engine, std::move(model), cache_.get(), cache_->manifests());
    if (!made.ok()) throw std::runtime_error(std::string(made.status().message()));
    engine_ = *std::move(made);
  }
  Engine& engine() { return *engine_; }

 private:
  test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> cache_;
  std::unique_ptr<Engine> engine_;
};

GenerationRequest Request(std::vector<int32_t> prompt, int max_tokens) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.stop.max_tokens = max_tokens;
  request.stop.ignore_eos = true;
  request.reuse_prefix = false;
  return request;
}

class DevicePresetTest : public testing::TestWithParam<std::string_view> {};

// Along the cpu's tokens: the probabilities of a random model are nearly alike, so that its best token may be another
// for any rounding.
TEST_P(DevicePresetTest, GivesTheProbabilitiesOfTheCpu) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  Worker cpu("cpu", model, /*exact=*/true), device(DeviceUnderTest(), model, /*exact=*/true);
  std::mt19937 random(4);
  for (RecallMode recall : {RecallMode::kOff, RecallMode::kSync}) {
    std::vector<int32_t> prompt(130);
    for (int32_t& token : prompt) token = static_cast<int32_t>(random() % model->config().vocabulary);
    GenerationRequest request = Request(prompt, 10);
    request.compression = *PresetSpec(GetParam());
    if (GetParam() != "full") {
      request.compression.budget_fraction = 0.4;
      request.compression.window_tokens = 8;
      request.compression.dense_layers_override = true;
      request.compression.recall.mode = recall;
    }
    request.logprobs = 0;
    const Answer expected = RunRequest(cpu.engine(), request);
    request.forced_tokens = expected.tokens;
    const Answer got = RunRequest(device.engine(), request);
    ASSERT_TRUE(expected.result.status.ok()) << expected.result.status;
    ASSERT_TRUE(got.result.status.ok()) << got.result.status;
    ASSERT_EQ(got.logprobs.size(), expected.logprobs.size());
    // kvzip has one threshold for the rows of all heads: one at it may fall otherwise, which shows in every step.
    const double near = GetParam() == "kvzip" ? 0.1 : 0.005;
    int far = 0;
    for (size_t i = 0; i < expected.logprobs.size(); ++i) {
      far += std::abs(got.logprobs[i].logprob - expected.logprobs[i].logprob) > near ? 1 : 0;
    }
    // Recall chooses between rows that score nearly alike, and a choice that falls otherwise shows in that step.
    EXPECT_LE(far, recall == RecallMode::kOff ? 0 : 4);
    EXPECT_NEAR(got.result.usage.recalled_rows, expected.result.usage.recalled_rows,
                0.01 * expected.result.usage.recalled_rows);
    EXPECT_EQ(got.result.usage.evicted_rows, expected.result.usage.evicted_rows);
    EXPECT_EQ(got.result.usage.lost_rows, 0);
  }
  EXPECT_EQ(device.engine().Stats().used_pages, 0);
}

INSTANTIATE_TEST_SUITE_P(Presets, DevicePresetTest, testing::ValuesIn(PresetNames()), [](const auto& test) {
  std::string name(test.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// Rows are rounded to codes: where they lie between two, the last bit of a row decides.
TEST(DeviceTest, KeepsRowsAtEveryPrecisionAsTheCpu) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  Worker cpu("cpu", model, /*exact=*/true), device(DeviceUnderTest(), model, /*exact=*/true);
  std::mt19937 random(6);
  for (const auto& [precision, preset] : {std::pair{KvPrecision::kInt8, "full"},
                                          {KvPrecision::kInt8, "d2o"},
                                          {KvPrecision::kKivi4, "ada-snapkv"},
                                          {KvPrecision::kKivi2, "full"}}) {
    std::vector<int32_t> prompt(120);
    for (int32_t& token : prompt) token = static_cast<int32_t>(random() % model->config().vocabulary);
    GenerationRequest request = Request(prompt, 34);
    request.compression = *PresetSpec(preset);
    if (request.compression.preset != "full") {
      request.compression.budget_fraction = 0.6;
      request.compression.window_tokens = 8;
      request.compression.dense_layers_override = true;
      request.compression.recall.mode = RecallMode::kSync;
    }
    request.compression.kv_precision = precision;
    request.compression.residual_tokens = 32;
    request.logprobs = 0;
    const Answer expected = RunRequest(cpu.engine(), request);
    request.forced_tokens = expected.tokens;
    const Answer got = RunRequest(device.engine(), request);
    ASSERT_TRUE(expected.result.status.ok()) << expected.result.status;
    ASSERT_TRUE(got.result.status.ok()) << got.result.status;
    ASSERT_EQ(got.logprobs.size(), expected.logprobs.size());
    double difference = 0;
    for (size_t i = 0; i < expected.logprobs.size(); ++i) {
      difference += std::abs(got.logprobs[i].logprob - expected.logprobs[i].logprob);
    }
    EXPECT_LT(difference / static_cast<double>(expected.logprobs.size()), 0.01)
        << preset << ", precision " << static_cast<int>(precision);
    // The host selects by what its steps attended to, a device by what it attends to then: rows may be packed between.
    const auto evicted = static_cast<double>(expected.result.usage.evicted_rows);
    EXPECT_NEAR(static_cast<double>(got.result.usage.evicted_rows), evicted, 0.01 * evicted) << preset;
  }
  EXPECT_EQ(device.engine().Stats().used_pages, 0);
}

// Drawn from the best logits, found on the device, or, as log-probabilities are asked for, from all of them on the
// host.
TEST(DeviceTest, DrawsTheTokensOfTheHostForTheSameSeeds) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  Worker device(DeviceUnderTest(), model, /*exact=*/false);
  for (const int top_k : {0, 1, 7, kMostBest, kMostBest + 1}) {
    GenerationRequest request = Request({1, 2, 3, 4, 5, 6, 7}, 12);
    if (top_k > 0) {
      request.sampling.temperature = 1.5f;
      request.sampling.top_k = top_k;
      request.sampling.top_p = 0.95f;
      request.sampling.seed = 40 + top_k;
    }
    const Answer on_device = RunRequest(device.engine(), request);
    request.logprobs = 0;
    const Answer on_host = RunRequest(device.engine(), request);
    ASSERT_TRUE(on_device.result.status.ok()) << on_device.result.status;
    EXPECT_EQ(on_device.tokens, on_host.tokens) << "top_k " << top_k;
  }
}

// Heads choose after the step: nothing waits for them, and rows come a token later.
TEST(DeviceTest, RecallsWithoutWaiting) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  Worker cpu("cpu", model, /*exact=*/true), device(DeviceUnderTest(), model, /*exact=*/true);
  std::vector<int32_t> prompt(200);
  std::mt19937 random(12);
  for (int32_t& token : prompt) token = static_cast<int32_t>(random() % model->config().vocabulary);
  GenerationRequest request = Request(prompt, 30);
  request.compression = *PresetSpec("snapkv");
  request.compression.budget_fraction = 0.3;
  request.compression.window_tokens = 8;
  request.compression.recall.mode = RecallMode::kAsync;
  request.logprobs = 0;
  const Answer expected = RunRequest(cpu.engine(), request);
  request.forced_tokens = expected.tokens;
  const Answer got = RunRequest(device.engine(), request);
  ASSERT_TRUE(got.result.status.ok()) << got.result.status;
  EXPECT_GT(expected.result.usage.recalled_rows, 0);
  EXPECT_GT(got.result.usage.recalled_rows, 0);
  EXPECT_EQ(got.result.usage.lost_rows, 0);
  EXPECT_EQ(got.result.usage.evicted_rows, expected.result.usage.evicted_rows);
}

// The index lies on the device: prompts are long enough for codes to be learnt, answers for blocks to be added. Tables
// that are learnt from keys which differ in the last bits are others, and choose other rows among those that score
// nearly alike; index_scan_test compares choices by the same tables.
TEST(DeviceTest, RecallsByAnIndexOnTheDevice) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  Worker cpu("cpu", model, /*exact=*/true), device(DeviceUnderTest(), model, /*exact=*/true);
  std::vector<int32_t> prompt(300);
  std::mt19937 random(15);
  for (int32_t& token : prompt) token = static_cast<int32_t>(random() % model->config().vocabulary);
  for (const RecallMode mode : {RecallMode::kSync, RecallMode::kAsync}) {
    GenerationRequest request = Request(prompt, 40);
    request.compression = *PresetSpec("snapkv");
    request.compression.budget_fraction = 0.4;
    request.compression.window_tokens = 8;
    request.compression.recall.mode = mode;
    request.compression.recall.index = RecallIndex::kPq16x4;
    request.compression.recall.placement = IndexPlacement::kDevice;
    request.compression.recall.shortlist = 16;
    request.logprobs = 0;
    const Answer expected = RunRequest(cpu.engine(), request);
    request.forced_tokens = expected.tokens;
    const Answer got = RunRequest(device.engine(), request);
    ASSERT_TRUE(expected.result.status.ok()) << expected.result.status;
    ASSERT_TRUE(got.result.status.ok()) << got.result.status;
    EXPECT_GT(got.result.usage.recalled_rows, 0);
    EXPECT_EQ(got.result.usage.lost_rows, 0);
    EXPECT_EQ(got.result.usage.evicted_rows, expected.result.usage.evicted_rows);
    if (mode == RecallMode::kAsync) continue;  // a token later than on the CPU
    EXPECT_NEAR(got.result.usage.recalled_rows, expected.result.usage.recalled_rows,
                0.01 * expected.result.usage.recalled_rows);
    double difference = 0;
    for (size_t i = 0; i < expected.logprobs.size(); ++i) {
      difference += std::abs(got.logprobs[i].logprob - expected.logprobs[i].logprob);
    }
    EXPECT_LT(difference / static_cast<double>(expected.logprobs.size()), 0.1);
  }
  EXPECT_EQ(device.engine().Stats().used_pages, 0);
}

TEST(DeviceTest, ASessionGoesOnOnAnotherDevice) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  for (const KvPrecision precision : {KvPrecision::kF16, KvPrecision::kInt8, KvPrecision::kKivi4}) {
    std::vector<std::vector<int32_t>> answers;
    const std::string cpu("cpu"), other(DeviceUnderTest());
    for (const std::vector<std::string>& devices : {std::vector{cpu, cpu}, {other, cpu}, {cpu, other}}) {
      test::TempDir dir;
      std::vector<int32_t> tokens;
      for (const std::string& device : devices) {
        CacheOptions options;
        options.data_dir = dir.path();
        auto cache = *EmbeddedCache::Open(options, LayoutOf(*model, KvType::kF16));
        EngineOptions engine_options;
        engine_options.device = device;
        engine_options.device_kv_bytes = size_t{64} << 20;
        engine_options.f32_weights = true;
        auto engine = *Engine::Create(engine_options, model, cache.get(), cache->manifests());
        GenerationRequest request = Request(std::vector<int32_t>(70, tokens.empty() ? 5 : 9), 6);
        request.session_id = std::string("session");
        if (precision == KvPrecision::kF16) {
          request.compression = *PresetSpec("snapkv");
          request.compression.budget_fraction = 0.5;
          request.compression.window_tokens = 8;
        } else {
          request.compression.kv_precision = precision;
          request.compression.residual_tokens = 32;
        }
        const Answer answer = RunRequest(*engine, request);
        ASSERT_TRUE(answer.result.status.ok()) << answer.result.status;
        tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
      }
      answers.push_back(tokens);
    }
    EXPECT_EQ(answers[1], answers[0]) << "precision " << static_cast<int>(precision);
    EXPECT_EQ(answers[2], answers[0]) << "precision " << static_cast<int>(precision);
  }
}

TEST(DeviceTest, RefusesWhatItDoesNotKeep) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  EngineOptions options;
  options.device = DeviceUnderTest();
  options.kv_type = KvType::kF32;
  EXPECT_EQ(Engine::Create(options, model, nullptr, nullptr).status().code(), absl::StatusCode::kInvalidArgument);
}

// Three prompts of the real model whose first tokens are not near ties.
std::vector<test::GreedyPath> RealPrompts() {
  std::vector<test::GreedyPath> paths;
  for (test::GreedyPath& path : test::ReadSmolGreedy()) {
    if (path.name == "plain" || path.name == "list" || path.name == "code") paths.push_back(std::move(path));
  }
  return paths;
}

// With float32 weights nothing but keys and values is rounded, so near ties are decided the same way, too.
TEST(DeviceTest, GivesTheTokensOfTheCpuOnTheRealModel) {
  const std::shared_ptr<const Model> model = *Model::Load(test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"));
  Worker cpu("cpu", model, /*exact=*/true), device(DeviceUnderTest(), model, /*exact=*/true);
  const std::vector<test::GreedyPath> paths = RealPrompts();
  ASSERT_EQ(paths.size(), 3u);
  for (std::string_view preset : {"full", "d2o", "ada-snapkv"}) {
    for (const test::GreedyPath& path : paths) {
      GenerationRequest request = Request(path.prompt, 8);
      request.compression = *PresetSpec(preset);
      if (preset != "full") {
        request.compression.budget_fraction = 0.5;
        request.compression.window_tokens = 8;
        request.compression.recall.mode = RecallMode::kSync;
      }
      const Answer expected = RunRequest(cpu.engine(), request), got = RunRequest(device.engine(), request);
      ASSERT_TRUE(got.result.status.ok()) << got.result.status;
      EXPECT_EQ(got.tokens, expected.tokens) << preset << ", " << path.name;
      if (preset == "full") {
        EXPECT_EQ(got.tokens, std::vector<int32_t>(path.new_ids.begin(), path.new_ids.begin() + 8)) << path.name;
      } else {
        EXPECT_GT(got.result.usage.evicted_rows, 0);
      }
    }
  }
}

// As shipped: int8 activations round differently with every last bit, so probabilities are compared, along the
// reference's tokens.
TEST(DeviceTest, QuantisedRealModelIsAsGoodAsTheCpus) {
  const std::shared_ptr<const Model> model = *Model::Load(test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"));
  Worker cpu("cpu", model, /*exact=*/false), device(DeviceUnderTest(), model, /*exact=*/false);
  double difference = 0;
  int compared = 0;
  for (const test::GreedyPath& path : RealPrompts()) {
    GenerationRequest request = Request(path.prompt, 0);
    request.forced_tokens.assign(path.new_ids.begin(), path.new_ids.begin() + 8);
    request.logprobs = 0;
    const Answer expected = RunRequest(cpu.engine(), request), got = RunRequest(device.engine(), request);
    ASSERT_EQ(got.logprobs.size(), 8u) << got.result.status;
    for (size_t i = 0; i < 8; ++i, ++compared)
      difference += std::abs(got.logprobs[i].logprob - expected.logprobs[i].logprob);
  }
  EXPECT_LT(difference / compared, 0.15);
}

}  // namespace
}  // namespace tidepool
