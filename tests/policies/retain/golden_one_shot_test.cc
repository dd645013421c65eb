// SnapKV, StreamingLLM and the tie rule of top-k, against tests/data/policies.
#include "gtest/gtest.h"
#include "policies/retain/layer_budget.h"
#include "policies/retain/select.h"
#include "policies/retain/token_scores.h"
#include "tests/policies/golden.h"
#include "tests/policies/reference_attention.h"

namespace tidepool {
namespace {

using test::ExpectClose;
using test::GoldenCases;
using test::GoldenLayer;
using test::Tensor;

RowBudget Budget(const CompressionSpec& spec, int tokens, int kept_rows) {
  LayerBudgetInput input;
  input.layers = 1;
  input.tokens = tokens;
  input.kept_rows = kept_rows;
  return LayerBudgets(spec, input)[0].rows;
}

Pooling PoolingOf(const std::string& name) { return name == "avg" ? Pooling::kAvg : Pooling::kMax; }
GroupReduce ReduceOf(const std::string& name) { return name == "max" ? GroupReduce::kMax : GroupReduce::kMean; }

TEST(GoldenTest, SnapKvScoresAndKeptRowsEqualTheReference) {
  for (const auto& json : GoldenCases("snapkv")) {
    SCOPED_TRACE(json.at("name").get<std::string>());
    const auto& params = json.at("params");
    const GoldenLayer layer(json, params.at("heads"));
    CompressionSpec spec = PresetSpec("snapkv").value();
    spec.window_tokens = params.at("window");
    spec.pool_kernel = params.at("kernel");
    spec.pooling = PoolingOf(params.at("pool"));
    spec.group_reduce = ReduceOf(params.at("group_reduce"));
    const RowBudget budget = Budget(spec, layer.tokens, params.at("capacity"));
    EXPECT_EQ(budget.total(), params.at("capacity").get<int>());
    EXPECT_EQ(budget.recent, spec.window_tokens);
    const Tensor expected = test::ToTensor(json.at("expect").at("score"));
    const auto kept = json.at("expect").at("kept").get<std::vector<std::vector<int32_t>>>();
    ASSERT_EQ(static_cast<int>(kept.size()), layer.storage_heads);
    const int past = layer.tokens - spec.window_tokens;
    for (int head = 0; head < layer.storage_heads; ++head) {
      const std::vector<float> scores =
          WindowScores(layer.Probabilities(head, past, layer.tokens, layer.tokens), layer.group, spec.window_tokens,
                       layer.tokens, past, spec.group_reduce, spec.pool_kernel, spec.pooling);
      ExpectClose(scores, expected.row(head));
      EXPECT_EQ(SelectRows(layer.tokens, scores, budget).kept, kept[head]);
    }
  }
}

TEST(GoldenTest, StreamingKeepsTheReferenceRowsAfterEveryStep) {
  for (const auto& json : GoldenCases("streaming")) {
    SCOPED_TRACE(json.at("name").get<std::string>());
    const auto& params = json.at("params");
    CompressionSpec spec = PresetSpec("streaming").value();
    spec.sink_tokens = params.at("sink");
    const int prompt = params.at("prompt"), total = params.at("total");
    const RowBudget budget = Budget(spec, prompt, spec.sink_tokens + params.at("recent").get<int>());
    std::vector<int32_t> positions;
    for (int i = 0; i < prompt; ++i) positions.push_back(i);
    for (int tokens = prompt; tokens <= total; ++tokens) {
      if (tokens > prompt) positions.push_back(tokens - 1);
      const Selection selection = SelectRows(static_cast<int>(positions.size()), {}, budget);
      std::vector<int32_t> kept;
      for (int32_t i : selection.kept) kept.push_back(positions[i]);
      positions = kept;
      EXPECT_EQ(positions, json.at("expect").at("kept").at(tokens - prompt).get<std::vector<int32_t>>());
    }
  }
}

TEST(GoldenTest, EqualScoresGoToTheLowerPosition) {
  for (const auto& json : GoldenCases("topk")) {
    const auto scores = json.at("score").get<std::vector<float>>();
    EXPECT_EQ(TopIndices(scores, json.at("params").at("m")), json.at("expect").at("kept").get<std::vector<int32_t>>());
  }
}

}  // namespace
}  // namespace tidepool
