#include "worker/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
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

EngineOptions SmallOptions() {
  EngineOptions options;
  options.device_kv_bytes = size_t{64} << 20;
  options.prefill_chunk_tokens = 32;
  return options;
}

std::unique_ptr<Engine> MakeEngine(EngineOptions options = SmallOptions()) {
  auto engine = Engine::Create(options, TinyModel(), nullptr, nullptr);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

std::vector<int32_t> RandomPrompt(int tokens, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> prompt(tokens);
  for (int32_t& token : prompt) token = static_cast<int32_t>(random() % TinyModel()->config().vocabulary);
  return prompt;
}

GenerationRequest Request(int prompt_tokens, int max_tokens, unsigned seed) {
  GenerationRequest request;
  request.prompt = RandomPrompt(prompt_tokens, seed);
  request.stop.max_tokens = max_tokens;
  request.stop.ignore_eos = true;
  request.logprobs = 0;
  return request;
}

GenerationRequest Compressed(GenerationRequest request, std::string_view preset, double fraction) {
  request.compression = *PresetSpec(preset);
  request.compression.budget_fraction = fraction;
  request.compression.window_tokens = 8;
  request.compression.dense_layers_override = true;  // the model has too few layers to leave three dense
  return request;
}

std::vector<float> Logprobs(const Answer& answer) {
  std::vector<float> values;
  for (const TokenLogprob& l : answer.logprobs) values.push_back(l.logprob);
  return values;
}

class EnginePresetTest : public testing::TestWithParam<std::string> {};

TEST_P(EnginePresetTest, AnswersDoNotDependOnChunksThreadsOrNeighbours) {
  auto request = [&](int i) {
    GenerationRequest r = Request(40 + 17 * i, 12 + i, i);
    return GetParam() == "full" ? r : Compressed(r, GetParam(), 0.4);
  };
  constexpr int kRequests = 6;
  std::vector<Answer> alone;
  {
    EngineOptions options = SmallOptions();
    options.threads = 1;
    options.prefill_chunk_tokens = 512;
    auto engine = MakeEngine(options);
    for (int i = 0; i < kRequests; ++i) {
      alone.push_back(RunRequest(*engine, request(i)));
      ASSERT_TRUE(alone.back().result.status.ok()) << alone.back().result.status;
      ASSERT_EQ(alone.back().tokens.size(), 12u + i);
    }
  }
  auto engine = MakeEngine();
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < kRequests; ++i) {
    sinks.push_back(std::make_shared<Collector>());
    ASSERT_TRUE(engine->Submit(request(i), sinks.back()).ok());
  }
  for (int i = 0; i < kRequests; ++i) {
    const GenerationResult result = sinks[i]->Wait();
    EXPECT_TRUE(result.status.ok());
    EXPECT_EQ(sinks[i]->tokens(), alone[i].tokens) << i;
    Answer together;
    together.logprobs = sinks[i]->logprobs();
    EXPECT_EQ(Logprobs(together), Logprobs(alone[i])) << "bit for bit, request " << i;
    EXPECT_EQ(result.usage.evicted_rows, alone[i].result.usage.evicted_rows);
  }
}

TEST_P(EnginePresetTest, AllPagesAreFreeWhenRequestsHaveEnded) {
  auto engine = MakeEngine();
  for (int i = 0; i < 3; ++i) {
    GenerationRequest r = Request(100, 5, i);
    if (GetParam() != "full") r = Compressed(r, GetParam(), 0.3);
    ASSERT_TRUE(RunRequest(*engine, r).result.status.ok());
  }
  EXPECT_EQ(engine->Stats().used_pages, 0);
  EXPECT_EQ(engine->Stats().requests_finished(), 3);
}

TEST_P(EnginePresetTest, KeepsWithinTheBudget) {
  auto engine = MakeEngine();
  const GenerationRequest plain = Request(200, 20, 3);
  const Answer answer = RunRequest(*engine, GetParam() == "full" ? plain : Compressed(plain, GetParam(), 0.25));
  ASSERT_TRUE(answer.result.status.ok());
  const GenerationUsage& usage = answer.result.usage;
  const ModelConfig& config = TinyModel()->config();
  const int64_t heads = int64_t{config.layers} * config.kv_heads;
  EXPECT_EQ(usage.context_tokens, 219);  // the last token's keys are computed when somebody goes on
  EXPECT_EQ(usage.resident_rows + usage.evicted_rows, 219 * heads);
  if (GetParam() == "full") {
    EXPECT_EQ(usage.evicted_rows, 0);
  } else {
    EXPECT_LE(usage.resident_rows, 55 * heads);  // a quarter of 219
    EXPECT_GE(usage.resident_rows, 48 * heads);
    EXPECT_EQ(usage.merged_rows > 0, GetParam() == "d2o");
    EXPECT_FALSE(usage.budget_exceeded);
  }
}

TEST_P(EnginePresetTest, AsPublishedRowsOfTheAnswerComeOnTopWhereThePolicyActsOnce) {
  if (GetParam() == "full") return;
  auto engine = MakeEngine();
  GenerationRequest request = Compressed(Request(200, 20, 3), GetParam(), 0.25);
  request.compression.decode_budget = DecodeBudget::kPublished;
  const Answer answer = RunRequest(*engine, request);
  ASSERT_TRUE(answer.result.status.ok());
  const int64_t heads = int64_t{TinyModel()->config().layers} * TinyModel()->config().kv_heads;
  const int64_t gained = GetParam() == "snapkv" ? 19 : 0;
  const int64_t slack = GetParam() == "d2o" ? 10 : 0;  // its layers differ
  EXPECT_NEAR(answer.result.usage.resident_rows, (50 + gained) * heads, slack * heads);
}

INSTANTIATE_TEST_SUITE_P(Presets, EnginePresetTest, testing::Values("full", "streaming", "snapkv", "h2o", "d2o"));

TEST(EngineTest, ColumnSumsOfTheGroupAreReducedAsAsked) {
  auto engine = MakeEngine();
  auto logprobs = [&](GroupReduce reduce) {
    GenerationRequest request = Compressed(Request(200, 0, 3), "h2o", 0.1);
    request.forced_tokens = RandomPrompt(40, 4);
    request.compression.group_reduce = reduce;
    return Logprobs(RunRequest(*engine, request));
  };
  EXPECT_NE(logprobs(GroupReduce::kMax), logprobs(GroupReduce::kMean));
  EXPECT_EQ(logprobs(GroupReduce::kSum), logprobs(GroupReduce::kMean)) << "the same order of two heads' rows";
}

TEST(EngineTest, ForcedTokensGiveTheLogprobsOfTheSameTokensGenerated) {
  auto engine = MakeEngine();
  const Answer free = RunRequest(*engine, Request(50, 16, 1));
  GenerationRequest forced = Request(50, 0, 1);
  forced.forced_tokens = free.tokens;
  const Answer scored = RunRequest(*engine, forced);
  ASSERT_TRUE(scored.result.status.ok());
  EXPECT_EQ(scored.tokens, free.tokens);
  EXPECT_EQ(Logprobs(scored), Logprobs(free));
}

TEST(EngineTest, CancellingFreesThePages) {
  auto engine = MakeEngine();
  auto sink = std::make_shared<Collector>();
  GenerationRequest request = Request(64, 4000, 1);
  request.prompt.resize(64);
  request.stop.max_tokens = TinyModel()->config().context_tokens - 64;
  uint64_t id = 0;
  Mutex mutex;
  sink->set_on_token([&](int count) {
    if (count != 3) return;
    MutexLock lock(&mutex);
    engine->Cancel(id);
  });
  {
    MutexLock lock(&mutex);
    auto submitted = engine->Submit(request, sink);
    ASSERT_TRUE(submitted.ok()) << submitted.status();
    id = *submitted;
  }
  const GenerationResult result = sink->Wait();
  EXPECT_EQ(result.reason, FinishReason::kCancelled);
  EXPECT_LT(sink->tokens().size(), 10u);
  EXPECT_EQ(engine->Stats().used_pages, 0);
  EXPECT_EQ(engine->Stats().requests_cancelled(), 1);
}

TEST(EngineTest, APastDeadlineEndsTheRequest) {
  auto engine = MakeEngine();
  GenerationRequest request = Request(30, 10, 1);
  request.deadline = absl::Now() - absl::Seconds(1);
  EXPECT_EQ(RunRequest(*engine, request).result.reason, FinishReason::kDeadline);
}

TEST(EngineTest, RequestsWaitForPagesAndAreAllAnswered) {
  EngineOptions options = SmallOptions();
  // Room for about two of these requests at a time.
  options.device_kv_bytes = size_t{3} << 20;
  auto engine = MakeEngine(options);
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 12; ++i) {
    sinks.push_back(std::make_shared<Collector>());
    ASSERT_TRUE(engine->Submit(Request(120, 30, i), sinks.back()).ok());
  }
  for (auto& sink : sinks) EXPECT_TRUE(sink->Wait().status.ok());
  EXPECT_EQ(engine->Stats().used_pages, 0);
}

TEST(EngineTest, StopStringsEndTheText) {
  auto engine = MakeEngine();
  GenerationRequest request = Request(30, 40, 4);
  const std::string text = RunRequest(*engine, request).text;
  ASSERT_GT(text.size(), 8u);
  size_t at = 4;
  while (at < text.size() && (text[at] & 0xc0) == 0x80) ++at;
  size_t end = at + 3;
  while (end < text.size() && (text[end] & 0xc0) == 0x80) ++end;
  request.stop.strings = {text.substr(at, end - at)};
  const Answer answer = RunRequest(*engine, request);
  EXPECT_EQ(answer.text, text.substr(0, text.find(request.stop.strings[0])));
  EXPECT_EQ(answer.result.reason, FinishReason::kStop);
  EXPECT_EQ(answer.result.stop_string, request.stop.strings[0]);
}

TEST(EngineTest, BadRequestsAreRefusedByField) {
  auto engine = MakeEngine();
  struct Case {
    std::string field;
    std::function<void(GenerationRequest&)> spoil;
  };
  const int32_t vocabulary = TinyModel()->config().vocabulary;
  const std::vector<Case> cases = {
      {"prompt", [](auto& r) { r.prompt.clear(); }},
      {"prompt[2]", [&](auto& r) { r.prompt[2] = vocabulary; }},
      {"prompt[0]", [](auto& r) { r.prompt[0] = -1; }},
      {"prompt", [](auto& r) { r.prompt.assign(100'000, 1); }},
      {"forced_tokens[1]",
       [&](auto& r) {
         r.forced_tokens = {1, vocabulary + 5};
       }},
      {"logprobs", [](auto& r) { r.logprobs = 21; }},
      {"logprobs", [](auto& r) { r.logprobs = -2; }},
      {"session_id", [](auto& r) { r.session_id = std::string(129, 'a'); }},
      {"session_id", [](auto& r) { r.session_id = "a b"; }},
      {"session_id", [](auto& r) { r.session_id = "a"; }},  // no cache service here
      {"temperature", [](auto& r) { r.sampling.temperature = -1; }},
      {"temperature", [](auto& r) { r.sampling.temperature = 11; }},
      {"top_k", [](auto& r) { r.sampling.top_k = -1; }},
      {"top_p", [](auto& r) { r.sampling.top_p = 0; }},
      {"top_p", [](auto& r) { r.sampling.top_p = 1.5; }},
      {"min_p", [](auto& r) { r.sampling.min_p = 1; }},
      {"repetition_penalty", [](auto& r) { r.sampling.repetition_penalty = 0; }},
      {"presence_penalty", [](auto& r) { r.sampling.presence_penalty = 3; }},
      {"frequency_penalty", [](auto& r) { r.sampling.frequency_penalty = -3; }},
      {"logit_bias",
       [&](auto& r) {
         r.sampling.logit_bias = {{vocabulary, 1.0f}};
       }},
      {"max_tokens", [](auto& r) { r.stop.max_tokens = -1; }},
      {"min_tokens", [](auto& r) { r.stop.min_tokens = -1; }},
      {"strings", [](auto& r) { r.stop.strings = {""}; }},
      {"token_ids", [&](auto& r) { r.stop.token_ids = {vocabulary}; }},
      {"compression.preset", [](auto& r) { r.compression.preset = "zip"; }},
      {"compression.preset", [](auto& r) { r.compression.score = "window"; }},
      {"compression.budget_fraction", [](auto& r) { r = Compressed(r, "snapkv", 0); }},
      {"compression.budget_fraction", [](auto& r) { r = Compressed(r, "snapkv", 1.5); }},
      {"compression.budget_tokens", [](auto& r) { r = Compressed(r, "snapkv", 0.5), r.compression.budget_tokens = 8; }},
      {"compression.budget_tokens", [](auto& r) { r = Compressed(r, "h2o", 0.5), r.compression.budget_tokens = -1; }},
      {"compression.window_tokens", [](auto& r) { r = Compressed(r, "snapkv", 0.5), r.compression.window_tokens = 0; }},
      {"compression.pool_kernel", [](auto& r) { r = Compressed(r, "snapkv", 0.5), r.compression.pool_kernel = 4; }},
      {"compression.recent_share", [](auto& r) { r = Compressed(r, "h2o", 0.5), r.compression.recent_share = 1; }},
      {"compression.recall.mode", [](auto& r) { r.compression.recall.mode = RecallMode::kSync; }},
      {"compression.recall.mode",
       [](auto& r) { r = Compressed(r, "h2o", 0.5), r.compression.recall.mode = RecallMode::kSync; }},
      {"compression.recall.share",
       [](auto& r) {
         r = Compressed(r, "h2o", 0.5), r.compression.recall = {.mode = RecallMode::kSync, .share = 0.9};
       }},
      {"compression.recall.ema_beta",
       [](auto& r) {
         r = Compressed(r, "h2o", 0.5), r.compression.recall = {.mode = RecallMode::kSync, .ema_beta = 2};
       }},
      {"compression.recall.ema_margin",
       [](auto& r) {
         r = Compressed(r, "h2o", 0.5), r.compression.recall = {.mode = RecallMode::kSync, .ema_margin = 0.5};
       }},
      {"compression.recall.budget_ms",
       [](auto& r) {
         r = Compressed(r, "h2o", 0.5), r.compression.recall = {.mode = RecallMode::kSync, .budget_ms = 0};
       }},
      {"compression.recall.rows",
       [](auto& r) { r = Compressed(r, "h2o", 0.5), r.compression.recall = {.mode = RecallMode::kSync, .rows = -1}; }},
  };
  for (const Case& c : cases) {
    GenerationRequest request = Request(10, 3, 1);
    c.spoil(request);
    const absl::Status status = RunRequest(*engine, request).result.status;
    EXPECT_FALSE(status.ok()) << c.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.field));
  }
  EXPECT_TRUE(RunRequest(*engine, Request(10, 3, 1)).result.status.ok()) << "the engine lives on";
}

TEST(EngineTest, BadOptionsAreRefusedByField) {
  auto refused = [](const char* field, auto spoil) {
    EngineOptions options = SmallOptions();
    spoil(options);
    const auto engine = Engine::Create(options, TinyModel(), nullptr, nullptr);
    ASSERT_FALSE(engine.ok()) << field;
    EXPECT_THAT(std::string(engine.status().message()), HasSubstr(field));
  };
  refused("threads", [](EngineOptions& o) { o.threads = 0; });
  refused("prefill_chunk_tokens", [](EngineOptions& o) { o.prefill_chunk_tokens = 0; });
  refused("decode_pace", [](EngineOptions& o) { o.decode_pace = 1; });
  refused("max_active_sequences", [](EngineOptions& o) { o.max_active_sequences = 65; });
  refused("device_kv_bytes", [](EngineOptions& o) { o.device_kv_bytes = 100; });
}

TEST(EngineTest, APromptThatCanNeverFitIsRefused) {
  EngineOptions options = SmallOptions();
  options.device_kv_bytes = size_t{1} << 16;
  auto engine = MakeEngine(options);
  const absl::Status status = RunRequest(*engine, Request(500, 3, 1)).result.status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("device_kv_bytes"));
}

}  // namespace
}  // namespace tidepool
