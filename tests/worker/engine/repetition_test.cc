// The engine makes the model repeat a prompt for the policies that want it, and nothing of it stays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "policies/retain/repetition_scores.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "tests/worker/engine/context_step.h"
#include "worker/engine/context.h"
#include "worker/engine/engine.h"
#include "worker/kv/batch_recall.h"
#include "worker/kv/head_view.h"
#include "worker/kv/window_attention.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using test::Answer;
using test::RunRequest;

constexpr int kSinks = 2, kWindow = 5;

std::shared_ptr<const Model> TinyModel() {
  static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f16.gguf"));
  return model;
}

std::vector<int32_t> RandomTokens(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % TinyModel()->config().vocabulary);
  return tokens;
}

RepetitionWords Words() { return {.first = {7, 8, 9}, .next = {10, 11}, .end = {12}}; }

// A sequence of one prompt.
class Sequence {
 public:
  Sequence(Backend& backend, const CompressionSpec& spec)
      : backend_(backend),
        recall_(&backend, nullptr, TinyModel()->config().heads, absl::Seconds(1)),
        context_(&backend, nullptr,
                 {.spec = spec, .nonce = "n", .query_heads = TinyModel()->config().heads, .repetition = Words()}) {}

  void Read(const std::vector<int32_t>& tokens, int32_t step) {
    context_.AddTokens(tokens);
    while (context_.uncomputed() > 0) Step(context_.NextChunk(step));
  }
  // Steps that the repetition took.
  int Repeat(int32_t step) {
    int steps = 0;
    if (!context_.BeginRepetition()) return steps;
    for (; context_.repeating(); ++steps) Step(context_.NextChunk(step));
    return steps;
  }
  Context& context() { return context_; }
  std::vector<int32_t> Positions(int layer, int kv_head) {
    const HeadRows& head = context_.rows().head(layer, kv_head);
    std::vector<int32_t> positions;
    for (int32_t slot : KeptSlots(head)) positions.push_back(head.position(slot));
    return positions;
  }

 private:
  void Step(int32_t count) {
    test::ComputeStep(backend_, recall_, context_, count, /*prompt=*/true);
    context_.EndStep(count, /*prompt=*/true);
  }

  Backend& backend_;
  BatchRecall recall_;
  Context context_;
};

CompressionSpec KvZip(int budget_tokens) {
  CompressionSpec spec = *PresetSpec("kvzip");
  spec.budget_tokens = budget_tokens;
  spec.sink_tokens = kSinks;
  spec.window_tokens = kWindow;
  spec.score_options["piece"] = 64;
  return spec;
}

class RepetitionEngineTest : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = *CreateCpuBackend(TinyModel(), {.threads = 1, .kv_bytes = size_t{16} << 20});
  const KvLayout& layout_ = backend_->layout();

  // Scores of the rows of each (layer, kv head), by a prompt that is the context and all that repeats a piece of it.
  std::vector<std::vector<float>> ScoresOfWholePrompts(const std::vector<int32_t>& tokens, int piece) {
    const int heads = TinyModel()->config().heads, group = heads / layout_.kv_heads;
    const int count = static_cast<int>(tokens.size());
    std::vector<std::vector<float>> scores(layout_.layers * layout_.kv_heads);
    for (int first = 0; first < count; first += piece) {
      const int last = std::min(first + piece, count);
      std::vector<int32_t> repeat = first == 0 ? Words().first : Words().next;
      repeat.insert(repeat.end(), tokens.begin() + std::max(0, first - 8), tokens.begin() + first);
      repeat.push_back(Words().end[0]);
      repeat.insert(repeat.end(), tokens.begin() + first, tokens.begin() + last);
      std::vector<int32_t> prompt = tokens;
      prompt.insert(prompt.end(), repeat.begin(), repeat.end());
      CompressionSpec remembers = *PresetSpec("snapkv");
      remembers.window_tokens = static_cast<int>(repeat.size());
      Sequence sequence(*backend_, remembers);
      sequence.Read(prompt, 1000);
      for (size_t i = 0; i < scores.size(); ++i) {
        const AttentionRows attention = AttentionOfLast(
            *backend_, sequence.context().rows(), static_cast<int>(i) / layout_.kv_heads,
            static_cast<int>(i) % layout_.kv_heads, group, *sequence.context().ring(), static_cast<int>(repeat.size()));
        const RepeatedRows rows = {
            .rows = attention.keys, .sinks = kSinks, .first = first, .last = last, .repetition = count};
        const std::vector<float> of_piece = RepetitionScores(attention.probabilities, rows);
        scores[i].insert(scores[i].end(), of_piece.begin(), of_piece.end());
      }
    }
    return scores;
  }
};

TEST_F(RepetitionEngineTest, TheRowsThatStayAreTheBestOfAllByWhatRepeatsThem) {
  const int tokens = 150, budget = 40;
  const std::vector<int32_t> prompt = RandomTokens(tokens, 3);
  const std::vector<std::vector<float>> scores = ScoresOfWholePrompts(prompt, 64);
  Sequence sequence(*backend_, KvZip(budget));
  sequence.Read(prompt, 48);
  const int64_t pages = backend_->pool().used();
  EXPECT_GT(sequence.Repeat(48), 3);
  EXPECT_EQ(backend_->pool().used(), pages) << "its pages are given back";
  EXPECT_EQ(sequence.context().rows().total_rows(), tokens * layout_.layers * layout_.kv_heads);
  EXPECT_EQ(sequence.context().computed(), tokens);
  sequence.context().EndPrefill();
  // All past rows of all heads, the best first.
  struct Row {
    float score;
    bool kept;
  };
  std::vector<Row> past;
  int64_t kept_rows = 0;
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      const std::vector<int32_t> kept = sequence.Positions(layer, kv_head);
      kept_rows += static_cast<int64_t>(kept.size());
      for (int position = 0; position < tokens; ++position) {
        const bool stays = std::binary_search(kept.begin(), kept.end(), position);
        if (position < kSinks || position >= tokens - kWindow) {
          EXPECT_TRUE(stays) << layer << " " << kv_head << " " << position;
          continue;
        }
        past.push_back({scores[layer * layout_.kv_heads + kv_head][position], stays});
      }
    }
  }
  const int64_t heads = int64_t{layout_.layers} * layout_.kv_heads;
  EXPECT_LE(kept_rows, budget * heads);
  EXPECT_GE(kept_rows, (budget - 8) * heads);  // some are left for the steps to come
  std::stable_sort(past.begin(), past.end(), [](const Row& a, const Row& b) { return a.score > b.score; });
  const auto count = std::count_if(past.begin(), past.end(), [](const Row& row) { return row.kept; });
  const auto right = std::count_if(past.begin(), past.begin() + count, [](const Row& row) { return row.kept; });
  // But for rows of layers and heads that their number of rows was rounded for.
  EXPECT_GE(right, count - 2 * heads);
  EXPECT_GT(count, 20 * heads);
}

TEST_F(RepetitionEngineTest, HowItIsCutIntoStepsChangesNothing) {
  const std::vector<int32_t> prompt = RandomTokens(150, 4);
  std::vector<std::vector<int32_t>> kept;
  for (const int32_t step : {256, 17, 1}) {
    Sequence sequence(*backend_, KvZip(40));
    sequence.Read(prompt, 64);
    sequence.Repeat(step);
    sequence.context().EndPrefill();
    std::vector<int32_t> all;
    for (int i = 0; i < layout_.layers * layout_.kv_heads; ++i) {
      for (int32_t position : sequence.Positions(i / layout_.kv_heads, i % layout_.kv_heads)) all.push_back(position);
    }
    kept.push_back(all);
    EXPECT_EQ(all, kept[0]) << step;
  }
}

TEST_F(RepetitionEngineTest, OnlyWhatHasNotBeenRepeatedIsAndNothingWhereAllFits) {
  Sequence sequence(*backend_, KvZip(40));
  sequence.Read(RandomTokens(30, 5), 64);
  EXPECT_EQ(sequence.Repeat(64), 0);
  sequence.context().EndPrefill();
  sequence.Read(RandomTokens(30, 6), 64);
  EXPECT_EQ(sequence.Repeat(1), 3 + 1 + 60);  // of both turns, in one piece
  sequence.context().EndPrefill();
  sequence.Read(RandomTokens(20, 7), 64);
  EXPECT_EQ(sequence.Repeat(1), 2 + 8 + 1 + 20);
}

std::unique_ptr<Engine> MakeEngine(size_t device_kv_bytes) {
  EngineOptions options;
  options.threads = 1;
  options.device_kv_bytes = device_kv_bytes;
  return *Engine::Create(options, TinyModel(), nullptr, nullptr);
}

TEST(RepetitionRequestTest, TheFirstTokenIsThatOfTheFullCacheAndThePagesAreReserved) {
  GenerationRequest request;
  request.prompt = RandomTokens(400, 8);
  request.stop.max_tokens = 20;
  request.stop.ignore_eos = true;
  request.logprobs = 0;
  const auto engine = MakeEngine(size_t{16} << 20);
  const Answer full = RunRequest(*engine, request);
  request.compression = *PresetSpec("kvzip");
  const Answer zipped = RunRequest(*engine, request);
  ASSERT_TRUE(zipped.result.status.ok()) << zipped.result.status;
  ASSERT_EQ(zipped.tokens.size(), 20u);
  EXPECT_EQ(zipped.logprobs[0].token, full.logprobs[0].token);
  EXPECT_EQ(zipped.logprobs[0].logprob, full.logprobs[0].logprob);
  EXPECT_GT(zipped.result.usage.evicted_rows, 0);
  EXPECT_EQ(zipped.result.usage.context_tokens, full.result.usage.context_tokens);
  EXPECT_GT(zipped.result.usage.peak_kv_bytes, full.result.usage.peak_kv_bytes);  // the repetition, for a while
  EXPECT_LT(zipped.result.usage.resident_kv_bytes, full.result.usage.resident_kv_bytes / 3);
  EXPECT_EQ(engine->Stats().used_pages, 0);
  // Where the prompt fits and its repetition does not, it is refused, not started.
  const KvLayout layout = LayoutOf(*TinyModel(), KvType::kF16);
  const auto small_engine = MakeEngine(layout.token_bytes() * 480);
  const Answer small = RunRequest(*small_engine, request);
  EXPECT_EQ(small.result.status.code(), absl::StatusCode::kResourceExhausted) << small.result.status;
  request.compression = CompressionSpec();
  EXPECT_TRUE(RunRequest(*small_engine, request).result.status.ok());
}

}  // namespace
}  // namespace tidepool
