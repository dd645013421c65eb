// Attention that is summed up as decoding steps compute it gives the rows that attention computed for the policy gives,
// and the same for any number of threads.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/paths.h"
#include "tests/worker/engine/context_step.h"
#include "worker/backend/backend.h"
#include "worker/engine/context.h"
#include "worker/kv/batch_recall.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

constexpr int kPrompt = 300, kSteps = 40, kWindow = 8;

struct Outcome {
  std::vector<int32_t> positions;  // of all heads' rows after each step
  std::vector<float> column_sums;  // at the end, of the rows that are left
  int selections = 0;              // by sums of the whole window
  int64_t evicted = 0;
};

CompressionSpec SpecOfPreset(const std::string& preset) {
  CompressionSpec spec = *PresetSpec(preset);
  spec.budget_fraction = 0.4;
  spec.window_tokens = kWindow;
  spec.decode_interval = kWindow;
  spec.dense_layers_override = true;
  spec.dense_layers = {0};
  return spec;
}

// decodes: the backend is told what steps are, and sums up what it is asked for. by_query_head: what steps add to
// column sums, it adds to those of each query head.
Outcome Decode(const CompressionSpec& spec, int threads, bool decodes, bool by_query_head = false) {
  static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f16.gguf"));
  const ModelConfig& config = model->config();
  const auto backend = *CreateCpuBackend(model, {.threads = threads, .kv_bytes = size_t{64} << 20});
  ContextOptions options;
  options.spec = spec;
  options.query_heads = config.heads;
  Context context(backend.get(), nullptr, std::move(options));
  BatchRecall recall(backend.get(), nullptr, config.heads, absl::Seconds(1));
  SequenceRows& rows = context.rows();
  for (int i = 0; i < config.layers * config.kv_heads && by_query_head; ++i) {
    rows.head(i / config.kv_heads, i % config.kv_heads).KeepColumnSums(config.heads / config.kv_heads, /*steps=*/true);
  }
  Outcome outcome;
  auto step = [&](int count, bool prompt) {
    context.BeginStep(count);
    const StepSlice slice = {.rows = &rows,
                             .tokens = context.StepTokens(count),
                             .first_position = context.step_position(),
                             .decodes = decodes && !prompt};
    recall.Begin({{&rows, &context.log(), nullptr, context.step_ring(), slice.first_position, count, prompt, nullptr,
                   prompt ? nullptr : context.step_compressor()}});
    backend->Step({&slice, 1}, &recall);
    recall.End();
    const HeadRows& last = rows.head(config.layers - 1, 0);
    const bool summed = last.keeps_step_sums() && last.summed_steps() == kWindow;
    const int64_t before = context.compressor().counters().evicted_rows;
    context.EndStep(count, prompt);
    outcome.selections += summed && context.compressor().counters().evicted_rows > before ? 1 : 0;
    for (int i = 0; i < config.layers * config.kv_heads; ++i) {
      const HeadRows& head = rows.head(i / config.kv_heads, i % config.kv_heads);
      for (int32_t slot : head.order()) outcome.positions.push_back(head.position(slot));
    }
  };
  test::PromptAndSteps(context, config.vocabulary, kPrompt, kSteps, step);
  for (int i = 0; i < config.layers * config.kv_heads; ++i) {
    const HeadRows& head = rows.head(i / config.kv_heads, i % config.kv_heads);
    for (const std::vector<float>& sums : head.column_sums()) {
      for (int32_t slot : head.order()) outcome.column_sums.push_back(sums[slot]);
    }
  }
  outcome.evicted = context.compressor().counters().evicted_rows;
  return outcome;
}

TEST(StepSumsTest, ASelectionByThemKeepsTheRowsOfOneByTheWindowsQueries) {
  for (const char* preset : {"snapkv", "ada-snapkv", "zipvl"}) {
    const CompressionSpec spec = SpecOfPreset(preset);
    const Outcome summed = Decode(spec, 2, true), computed = Decode(spec, 2, false);
    EXPECT_GE(summed.selections, 2) << preset;
    EXPECT_EQ(computed.selections, 0);
    EXPECT_GT(summed.evicted, 0);
    EXPECT_TRUE(summed.positions == computed.positions) << preset;
    for (const int threads : {1, 3}) EXPECT_TRUE(Decode(spec, threads, true).positions == summed.positions) << threads;
  }
}

TEST(StepSumsTest, WhatTheyCannotSayIsComputed) {
  for (const bool largest : {true, false}) {
    CompressionSpec spec = SpecOfPreset("snapkv");
    if (largest) {
      spec.group_reduce = GroupReduce::kMax;
    } else {
      spec.decode_interval = kWindow / 2;  // rows have gone within the window
    }
    const Outcome outcome = Decode(spec, 2, true);
    EXPECT_EQ(outcome.selections, 0);
    EXPECT_GT(outcome.evicted, 0);
    EXPECT_TRUE(outcome.positions == Decode(spec, 2, false).positions);
  }
}

TEST(StepSumsTest, ColumnSumsOfStepsTogetherEvictTheSameRows) {
  for (const char* preset : {"h2o", "d2o"}) {
    const CompressionSpec spec = SpecOfPreset(preset);
    const Outcome together = Decode(spec, 2, true), each = Decode(spec, 2, true, /*by_query_head=*/true);
    EXPECT_GT(together.evicted, 0);
    EXPECT_TRUE(together.positions == each.positions) << preset;
    EXPECT_FALSE(together.column_sums == each.column_sums);  // of the prompt alone, and of all queries
  }
}

}  // namespace
}  // namespace tidepool
