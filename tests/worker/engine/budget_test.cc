// The device budget holds: at every step of random requests, what the page allocator has given out for the sequence and
// the index on the device are within it, but for a page of each (layer, kv head).
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cacheservice/embedded/embedded_cache.h"
#include "policies/retain/budget_split.h"
#include "policies/retain/score_method.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/engine/context_step.h"
#include "worker/engine/context.h"
#include "worker/engine/engine.h"
#include "worker/kv/batch_recall.h"
#include "worker/kv/device_shape.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using test::Answer;
using test::RunRequest;

std::shared_ptr<const Model> ThreeLayers() {
  static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f16.gguf"));
  return model;
}

KvLayout Layout() { return LayoutOf(*ThreeLayers(), KvType::kF16); }

class BudgetTest : public testing::Test {
 protected:
  BudgetTest() {
    CacheOptions options;
    options.data_dir = dir_.path();
    cache_ = *EmbeddedCache::Open(options, Layout());
    backend_ = *CreateCpuBackend(ThreeLayers(), {.threads = 1, .kv_bytes = size_t{16} << 20});
  }

  // A sequence that is stepped as the engine does, and looked at after every step.
  class Sequence {
   public:
    Sequence(BudgetTest& test, const CompressionSpec& spec, unsigned seed)
        : test_(test),
          random_(seed),
          recall_(test.backend_.get(), test.cache_.get(), ThreeLayers()->config().heads, absl::Seconds(10)),
          context_(test.backend_.get(), test.cache_.get(),
                   {.spec = spec, .nonce = "n", .query_heads = ThreeLayers()->config().heads}) {}

    void Prompt(int32_t tokens) {
      AddTokens(tokens);
      const bool chunked = context_.spec().prefill == PrefillMode::kChunked;
      while (context_.uncomputed() > 0) {
        Step(context_.NextChunk(48), /*prompt=*/true);
        if (!chunked) continue;
        const size_t chunk = Layout().token_bytes() * static_cast<size_t>(context_.spec().prefill_chunk);
        Check("in a chunk", static_cast<int32_t>(context_.token_ids().size()), static_cast<int64_t>(chunk));
      }
      if (context_.BeginRepetition()) {
        while (context_.repeating()) Step(context_.NextChunk(48), /*prompt=*/true);
      }
      context_.EndPrefill();
      Check("after the prompt", context_.computed(), 0);
    }
    void Decode(int32_t steps) {
      for (int32_t i = 0; i < steps; ++i) {
        AddTokens(1);
        Step(1, /*prompt=*/false);
      }
    }
    Context& context() { return context_; }
    int64_t checks() const { return checks_; }

   private:
    void AddTokens(int32_t count) {
      std::vector<int32_t> tokens(count);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % ThreeLayers()->config().vocabulary);
      context_.AddTokens(tokens);
    }
    void Step(int32_t count, bool prompt) {
      test::ComputeStep(*test_.backend_, recall_, context_, count, prompt);
      if (!prompt) Check("in a step", context_.computed() + count, 0);
      context_.EndStep(count, prompt);
      if (!prompt) Check("after a step", context_.computed(), 0);
    }
    void Check(const char* when, int32_t tokens, int64_t extra) {
      const PagePool& pool = test_.backend_->pool();
      const DeviceShape& shape = context_.compressor().shape();
      // What the engine reserves is enough in any case.
      const int64_t reserved = Compressor::MostRows(context_.spec(), shape, tokens, 0) / kPageSlots + 2 * shape.heads();
      ASSERT_LE((pool.used() - reserved) * static_cast<int64_t>(pool.page_bytes()), extra) << when << ", " << tokens;
      if (context_.compressor().counters().over_budget) return;
      if (context_.spec().decode_budget == DecodeBudget::kPublished) return;
      const int64_t rounding = shape.heads() * static_cast<int64_t>(pool.page_bytes());
      int64_t used = pool.used_bytes();
      if (context_.recall() != nullptr && context_.spec().recall.placement == IndexPlacement::kDevice) {
        used += context_.recall()->index_bytes();
      }
      ASSERT_LE(used, BudgetBytes(context_.spec(), shape, tokens) + rounding + extra) << when << ", " << tokens;
      ++checks_;
    }

    BudgetTest& test_;
    std::mt19937 random_;
    BatchRecall recall_;
    Context context_;
    int64_t checks_ = 0;
  };

  test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> cache_;
  std::unique_ptr<Backend> backend_;
};

// Every combination of stages that is not refused.
std::vector<CompressionSpec> AllCombinations() {
  std::vector<CompressionSpec> all;
  CompressionSpec spec = *PresetSpec("snapkv");
  for (const ScoreMethod* score : AllScores()) {
    for (int layer = 0; layer <= static_cast<int>(LayerBudgetRule::kBestRows); ++layer) {
      for (int head = 0; head <= static_cast<int>(HeadBudgetRule::kNeeded); ++head) {
        for (int schedule = 0; schedule <= static_cast<int>(Schedule::kFirstStep); ++schedule) {
          for (int fate = 0; fate <= static_cast<int>(Fate::kMergeNearest); ++fate) {
            spec.score = score->name();
            spec.layer_budget = static_cast<LayerBudgetRule>(layer);
            spec.head_budget = static_cast<HeadBudgetRule>(head);
            spec.schedule = static_cast<Schedule>(schedule);
            spec.fate = static_cast<Fate>(fate);
            if (ValidateCompression(spec).ok()) all.push_back(spec);
          }
        }
      }
    }
  }
  return all;
}

// Numbers that the budget can hold from some length on; where it cannot, the sequence says so.
CompressionSpec WithRandomNumbers(CompressionSpec spec, std::mt19937& random) {
  auto below = [&](int n) { return static_cast<int>(random() % n); };
  spec.window_tokens = 1 + below(12);
  spec.aha_recent = 1 + below(12);
  spec.sink_tokens = below(5);
  spec.recent_share = 0.1 + 0.1 * below(9);
  spec.group_reduce = static_cast<GroupReduce>(below(3));
  spec.pyramid_beta = 1 + below(20);
  spec.ada_floor = 0.25 * below(5);
  spec.lazy_last = 1 + below(8);
  spec.lazy_recent = 1 + below(60);
  if (below(2) == 0) spec.lazy_threshold = 0.3;
  spec.lazy_share = 0.25 * below(5);
  spec.dense_layers_override = true;
  spec.decode_interval = 1 + below(24);
  switch (below(3)) {
    case 0: spec.budget_fraction = 0.15 + 0.05 * below(17); break;
    case 1: spec.budget_tokens = 30 + below(80); break;
    case 2: spec.budget_bytes = static_cast<int64_t>(Layout().token_bytes()) * (30 + below(80)) + below(1000); break;
  }
  if (below(4) == 0) spec.dense_layers = {below(3)};
  if (below(2) == 0) {
    spec.recall.mode = below(2) == 0 ? RecallMode::kSync : RecallMode::kAsync;
    spec.recall.share = 0.25 + 0.25 * below(3);
    if (below(3) == 0) spec.recall.rows = 1 + below(10);
    if (below(3) == 0) spec.recall.placement = IndexPlacement::kDevice;
    spec.recall.select_scope = static_cast<SelectScope>(below(3));
  }
  if (below(3) == 0) {
    spec.prefill = PrefillMode::kChunked;
    spec.prefill_chunk = 64;
  }
  if (below(2) == 0) {
    spec.kv_precision = static_cast<KvPrecision>(below(kKvPrecisions));
    spec.residual_tokens = below(80);
  }
  return spec;
}

TEST_F(BudgetTest, HoldsForEveryCombinationOfStages) {
  const std::vector<CompressionSpec> combinations = AllCombinations();
  EXPECT_GT(combinations.size(), 150u);
  int sequences = 0, over = 0;
  for (size_t i = 0; i < combinations.size(); ++i) {
    std::mt19937 random(static_cast<unsigned>(i));
    const CompressionSpec spec = WithRandomNumbers(combinations[i], random);
    const int32_t prompt = 64 + static_cast<int32_t>(random() % 100), steps = static_cast<int32_t>(random() % 12);
    if (!ValidateCompression(spec).ok()) continue;  // too small a budget for its least rows
    if (!CheckBudget(spec, DeviceShapeOf(Layout(), spec), prompt + steps + 30).ok()) continue;
    SCOPED_TRACE(testing::Message() << i << ": " << CompressionFingerprint(spec) << ", prompt " << prompt << ", steps "
                                    << steps);
    Sequence sequence(*this, spec, static_cast<unsigned>(i));
    sequence.Prompt(prompt);
    sequence.Decode(steps);
    sequence.Prompt(20);
    sequence.Decode(10);
    ++sequences;
    over += sequence.context().compressor().counters().over_budget;
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(sequences, static_cast<int>(combinations.size()) / 2);
  EXPECT_LT(over, sequences / 4);
}

TEST_F(BudgetTest, HoldsAtEveryStepOfRandomConfigurationsAndLengths) {
  int sequences = 0, over = 0;
  int64_t checks = 0;
  for (unsigned seed = 0; seed < 160; ++seed) {
    std::mt19937 random(seed);
    const std::vector<std::string_view> presets = PresetNames();
    const CompressionSpec spec = WithRandomNumbers(*PresetSpec(presets[1 + random() % (presets.size() - 1)]), random);
    const int32_t prompt = 1 + static_cast<int32_t>(random() % 300), steps = static_cast<int32_t>(random() % 60);
    const int32_t next = static_cast<int32_t>(random() % 40);
    const DeviceShape shape = DeviceShapeOf(Layout(), spec);
    if (!ValidateCompression(spec).ok() || !CheckBudget(spec, shape, prompt + steps + next + 20).ok()) continue;
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << CompressionFingerprint(spec) << ", prompt " << prompt
                                    << ", steps " << steps);
    Sequence sequence(*this, spec, seed);
    sequence.Prompt(prompt);
    sequence.Decode(steps);
    if (next > 0) {  // another turn
      sequence.Prompt(next);
      sequence.Decode(20);
    }
    ++sequences;
    over += sequence.context().compressor().counters().over_budget;
    checks += sequence.checks();
    if (HasFatalFailure()) return;
  }
  // Most configurations can be held; the others are those whose sequences are short for their fraction.
  EXPECT_GT(sequences, 100);
  EXPECT_LT(over, sequences / 4);
  EXPECT_GT(checks, 5000);
  EXPECT_EQ(backend_->pool().used(), 0);
}

TEST_F(BudgetTest, EveryPresetIsHeldAtAFifth) {
  for (std::string_view preset : PresetNames()) {
    if (preset == "full") continue;
    for (const PrefillMode prefill : {PrefillMode::kWhole, PrefillMode::kChunked}) {
      CompressionSpec spec = *PresetSpec(preset);
      spec.budget_fraction = 0.2;
      spec.window_tokens = spec.aha_recent = 16;
      spec.dense_layers_override = true;
      spec.prefill = prefill;
      spec.prefill_chunk = 64;
      if (!ValidateCompression(spec).ok()) continue;  // kvzip wants whole prompts
      SCOPED_TRACE(CompressionFingerprint(spec));
      Sequence sequence(*this, spec, 1);
      sequence.Prompt(400);
      sequence.Decode(64);
      EXPECT_FALSE(sequence.context().compressor().counters().over_budget);
      const int64_t rows = sequence.context().rows().total_rows(),
                    full = 464 * sequence.context().compressor().shape().heads();
      EXPECT_LE(rows, full / 5 + 1);
      EXPECT_GE(rows, full / 6) << "the budget is made use of";
    }
  }
}

TEST_F(BudgetTest, WhatHeadsNeedBeyondAPublishedBudgetIsReserved) {
  for (const char* preset : {"corm", "fastgen"}) {
    CompressionSpec spec = *PresetSpec(preset);
    spec.decode_budget = DecodeBudget::kPublished;
    SCOPED_TRACE(preset);
    Sequence sequence(*this, spec, 1);
    sequence.Prompt(1200);
    EXPECT_GT(sequence.context().rows().total_rows(), 1200 / 4 * sequence.context().compressor().shape().heads());
    sequence.Decode(20);
  }
}

TEST_F(BudgetTest, ASequenceTooShortForItsFractionKeepsTheLeastRowsAndSaysSo) {
  CompressionSpec spec = *PresetSpec("snapkv");
  spec.budget_fraction = 0.2;
  Sequence sequence(*this, spec, 1);
  sequence.Prompt(60);
  EXPECT_TRUE(sequence.context().compressor().counters().over_budget);
  EXPECT_EQ(sequence.context().rows().longest_head(), LeastKeptRows(spec));
}

std::unique_ptr<Engine> MakeEngine(int prefill_chunk_tokens, size_t device_kv_bytes = size_t{16} << 20) {
  EngineOptions options;
  options.threads = 1;
  options.prefill_chunk_tokens = prefill_chunk_tokens;
  options.device_kv_bytes = device_kv_bytes;
  return *Engine::Create(options, ThreeLayers(), nullptr, nullptr);
}

GenerationRequest Request(std::string_view preset, int prompt_tokens, int max_tokens) {
  GenerationRequest request;
  std::mt19937 random(7);
  for (int i = 0; i < prompt_tokens; ++i) {
    request.prompt.push_back(static_cast<int32_t>(random() % ThreeLayers()->config().vocabulary));
  }
  request.stop.max_tokens = max_tokens;
  request.stop.ignore_eos = true;
  request.logprobs = 0;
  request.compression = *PresetSpec(preset);
  request.compression.window_tokens = request.compression.aha_recent = request.compression.lazy_last = 8;
  request.compression.dense_layers_override = true;
  request.compression.budget_fraction = 0.2;
  request.compression.prefill = PrefillMode::kChunked;
  request.compression.prefill_chunk = 64;
  return request;
}

std::vector<float> Logprobs(const Answer& answer) {
  std::vector<float> values;
  for (const TokenLogprob& l : answer.logprobs) values.push_back(l.logprob);
  return values;
}

TEST(ChunkedPrefillTest, APromptLongerThanTheSlotPoolIsServed) {
  const KvLayout layout = Layout();
  const size_t pool = layout.token_bytes() * 260;  // tokens
  for (std::string_view preset : PresetNames()) {
    if (preset == "full") continue;
    auto engine = MakeEngine(256, pool);
    GenerationRequest request = Request(preset, 440, 30);
    if (!ValidateCompression(request.compression).ok()) continue;  // kvzip wants whole prompts
    const Answer answer = RunRequest(*engine, request);
    ASSERT_TRUE(answer.result.status.ok()) << preset << ": " << answer.result.status;
    const GenerationUsage& usage = answer.result.usage;
    EXPECT_EQ(usage.generated_tokens, 30);
    const int64_t rounding = int64_t{layout.layers} * layout.kv_heads * engine->Stats().page_bytes;
    EXPECT_LE(usage.peak_kv_bytes, static_cast<int64_t>((440 * 0.2 + 64) * layout.token_bytes()) + rounding) << preset;
    EXPECT_LE(usage.decode_peak_kv_bytes, usage.budget_bytes + rounding) << preset;
    EXPECT_FALSE(usage.budget_exceeded) << preset;
    request.compression.prefill = PrefillMode::kWhole;
    EXPECT_EQ(RunRequest(*engine, request).result.status.code(), absl::StatusCode::kResourceExhausted) << preset;
    EXPECT_EQ(engine->Stats().used_pages, 0);
  }
}

TEST(ChunkedPrefillTest, AnswersDoNotDependOnHowTheEngineCutsItsSteps) {
  for (std::string_view preset : PresetNames()) {
    if (preset == "full") continue;
    GenerationRequest request = Request(preset, 300, 24);
    if (!ValidateCompression(request.compression).ok()) request.compression.prefill = PrefillMode::kWhole;
    const Answer in_one = RunRequest(*MakeEngine(512), request), in_bits = RunRequest(*MakeEngine(23), request);
    ASSERT_TRUE(in_one.result.status.ok()) << preset << ": " << in_one.result.status;
    EXPECT_EQ(in_bits.tokens, in_one.tokens) << preset;
    EXPECT_EQ(Logprobs(in_bits), Logprobs(in_one)) << preset << ": bit for bit";
    EXPECT_EQ(in_bits.result.usage.evicted_rows, in_one.result.usage.evicted_rows) << preset;
  }
}

TEST(BudgetRequestTest, WhatABudgetCannotHoldIsRefusedByField) {
  auto engine = MakeEngine(256);
  struct Case {
    const char* field;
    std::function<void(CompressionSpec&)> change;
  };
  const Case cases[] = {
      {"dense_layers", [](auto& s) { s.dense_layers = {0}; }},  // a third of the layers, a fifth of the cache
      {"budget_bytes", [](auto& s) { s.budget_bytes = 1000; }},
      {"budget_bytes",
       [](auto& s) {
         s.budget_bytes = 1 << 20;
         s.budget_tokens = 64;
       }},
      {"budget_tokens", [](auto& s) { s.budget_tokens = s.window_tokens + 1; }},
      {"prefill_chunk", [](auto& s) { s.prefill_chunk = 100; }},
      {"decode_interval", [](auto& s) { s.decode_interval = 0; }},
  };
  for (const Case& c : cases) {
    GenerationRequest request = Request("snapkv", 200, 10);
    c.change(request.compression);
    const absl::Status status = RunRequest(*engine, request).result.status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field << ": " << status;
    EXPECT_NE(std::string(status.message()).find(c.field), std::string::npos) << status;
  }
}

TEST(BudgetRequestTest, ABudgetInBytesIsThatOfTheSameRows) {
  auto engine = MakeEngine(256);
  GenerationRequest request = Request("h2o", 200, 10);
  request.compression.prefill = PrefillMode::kWhole;
  request.compression.budget_tokens = 50;
  const Answer rows = RunRequest(*engine, request);
  request.compression.budget_tokens = 0;
  request.compression.budget_bytes = static_cast<int64_t>(Layout().token_bytes()) * 50;
  const Answer bytes = RunRequest(*engine, request);
  ASSERT_TRUE(bytes.result.status.ok()) << bytes.result.status;
  EXPECT_EQ(bytes.tokens, rows.tokens);
  EXPECT_EQ(Logprobs(bytes), Logprobs(rows));
  EXPECT_EQ(bytes.result.usage.budget_bytes, request.compression.budget_bytes);
  EXPECT_EQ(rows.result.usage.budget_bytes, request.compression.budget_bytes);
}

}  // namespace
}  // namespace tidepool
