// What D2O evicts and merges is found as each head has attended, or after the step where a backend does not ask for it:
// the same rows, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/paths.h"
#include "tests/worker/engine/context_step.h"
#include "worker/backend/backend.h"
#include "worker/engine/context.h"
#include "worker/kv/batch_recall.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

constexpr int kPrompt = 300, kSteps = 40;

struct Outcome {
  std::vector<float> logits;      // of all steps
  std::vector<int32_t> order;     // slots and positions of all heads at the end
  std::vector<std::string> rows;  // theirs
  int64_t merged = 0;
  bool asked = false;  // some step
};

Outcome Decode(const std::string& preset, DecodeBudget budget, bool in_step) {
  static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f16.gguf"));
  const ModelConfig& config = model->config();
  const auto backend = *CreateCpuBackend(model, {.threads = 2, .kv_bytes = size_t{64} << 20});
  ContextOptions options;
  options.spec = *PresetSpec(preset);
  options.spec.budget_fraction = 0.4;
  options.spec.decode_budget = budget;
  options.spec.dense_layers_override = true;
  options.query_heads = config.heads;
  Context context(backend.get(), nullptr, std::move(options));
  BatchRecall recall(backend.get(), nullptr, config.heads, absl::Seconds(1));
  Outcome outcome;
  auto step = [&](int count, bool prompt) {
    context.BeginStep(count);
    std::vector<float> logits(config.vocabulary);
    const StepSlice slice = {.rows = &context.rows(),
                             .tokens = context.StepTokens(count),
                             .first_position = context.step_position(),
                             .logits_rows = 1,
                             .logits = logits.data(),
                             .decodes = !prompt};
    Compressor* compressor = prompt || !in_step ? nullptr : context.step_compressor();
    outcome.asked = outcome.asked || compressor != nullptr;
    recall.Begin({{&context.rows(), &context.log(), nullptr, context.step_ring(), slice.first_position, count, prompt,
                   nullptr, compressor}});
    backend->Step({&slice, 1}, &recall);
    recall.End();
    context.EndStep(count, prompt);
    outcome.logits.insert(outcome.logits.end(), logits.begin(), logits.end());
  };
  test::PromptAndSteps(context, config.vocabulary, kPrompt, kSteps, step);
  for (int layer = 0; layer < config.layers; ++layer) {
    for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
      const HeadRows& head = context.rows().head(layer, kv_head);
      for (int32_t slot : head.order()) {
        outcome.order.push_back(slot);
        outcome.order.push_back(head.position(slot));
      }
      std::string bytes(head.rows() * backend->layout().row_bytes(), '\0');
      backend->ReadRows(context.rows(), layer, kv_head, head.order(), bytes.data());
      outcome.rows.push_back(std::move(bytes));
    }
  }
  outcome.merged = context.compressor().counters().merged_rows;
  return outcome;
}

class EvictInStepTest : public testing::TestWithParam<DecodeBudget> {};

TEST_P(EvictInStepTest, TheSameRowsAsAfterTheStep) {
  const Outcome in_step = Decode("d2o", GetParam(), true), after = Decode("d2o", GetParam(), false);
  EXPECT_TRUE(in_step.asked);
  EXPECT_GT(after.merged, 0);
  EXPECT_EQ(in_step.merged, after.merged);
  EXPECT_EQ(in_step.order, after.order);
  EXPECT_EQ(in_step.rows, after.rows);
  EXPECT_TRUE(in_step.logits == after.logits);
}

INSTANTIATE_TEST_SUITE_P(Budgets, EvictInStepTest, testing::Values(DecodeBudget::kHeld, DecodeBudget::kPublished),
                         [](const auto& info) { return info.param == DecodeBudget::kHeld ? "Held" : "Published"; });

TEST(EvictInStepOfOthersTest, PoliciesThatDoNotMergeAreNotAsked) {
  for (const char* preset : {"h2o", "ada-snapkv", "full"}) {
    EXPECT_FALSE(Decode(preset, DecodeBudget::kHeld, true).asked) << preset;
  }
}

}  // namespace
}  // namespace tidepool
