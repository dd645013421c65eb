// PyramidKV, Ada-KV and LightTransfer: how rows are shared out over layers and heads, against tests/data/policies.
#include "gtest/gtest.h"
#include "policies/retain/head_budget.h"
#include "policies/retain/layer_budget.h"
#include "policies/retain/lazy_layers.h"
#include "policies/retain/preset_table.h"
#include "policies/retain/pyramid_budget.h"
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
using IntRows = std::vector<std::vector<int32_t>>;

CompressionSpec WindowSpec(const char* preset, const nlohmann::json& params) {
  CompressionSpec spec = FindPreset(preset)->make();
  spec.window_tokens = params.at("window");
  spec.pool_kernel = params.at("kernel");
  spec.pooling = params.at("pool") == "avg" ? Pooling::kAvg : Pooling::kMax;
  EXPECT_EQ(params.at("group_reduce"), "mean");
  if (params.contains("beta")) spec.pyramid_beta = params.at("beta");
  if (params.contains("alpha")) spec.ada_floor = params.at("alpha");
  if (params.contains("normalize")) spec.ada_normalize = params.at("normalize");
  return spec;
}

std::vector<LayerBudget> Budgets(const CompressionSpec& spec, int layers, int tokens, int kept_rows) {
  LayerBudgetInput input;
  input.layers = layers;
  input.tokens = tokens;
  input.kept_rows = kept_rows;
  return LayerBudgets(spec, input);
}

// Pooled scores of the past rows of each storage head.
std::vector<std::vector<float>> PastScores(const GoldenLayer& layer, const CompressionSpec& spec) {
  const int past = layer.tokens - spec.window_tokens;
  std::vector<std::vector<float>> scores;
  for (int head = 0; head < layer.storage_heads; ++head) {
    scores.push_back(WindowScores(layer.Probabilities(head, past, layer.tokens, layer.tokens), layer.group,
                                  spec.window_tokens, layer.tokens, past, spec.group_reduce, spec.pool_kernel,
                                  spec.pooling));
  }
  return scores;
}

IntRows Kept(const CompressionSpec& spec, const RowBudget& average, const GoldenLayer& layer,
             const std::vector<std::vector<float>>& scores) {
  const std::vector<RowBudget> budgets = HeadBudgets(spec, average, scores);
  IntRows kept;
  for (size_t head = 0; head < scores.size(); ++head) {
    kept.push_back(SelectRows(layer.tokens, scores[head], budgets[head]).kept);
  }
  return kept;
}

std::vector<int> Heavy(const std::vector<RowBudget>& budgets) {
  std::vector<int> heavy;
  for (const RowBudget& budget : budgets) heavy.push_back(budget.heavy);
  return heavy;
}

TEST(GoldenTest, PyramidSchedulesEqualTheReferenceInBothVariants) {
  int runs = 0;
  for (const auto& json : GoldenCases("pyramidkv")) {
    if (json.at("name") != "schedule") continue;
    ++runs;
    const auto& params = json.at("params");
    const int layers = params.at("layers"), tokens = params.at("n"), capacity = params.at("capacity");
    struct {
      const char* preset;
      const char* expected;
    } const variants[] = {{"pyramidkv", "past"}, {"ada-pyramidkv", "ada_past"}};
    for (const auto& variant : variants) {
      CompressionSpec spec = FindPreset(variant.preset)->make();
      spec.window_tokens = params.at("window");
      spec.pyramid_beta = params.at("beta");
      const auto& expected = json.at("expect").at(variant.expected);
      const std::vector<LayerBudget> budgets = Budgets(spec, layers, tokens, capacity);
      ASSERT_EQ(static_cast<int>(budgets.size()), layers);
      for (int layer = 0; layer < layers; ++layer) {
        EXPECT_EQ(budgets[layer].rows.recent, spec.window_tokens);
        EXPECT_FALSE(budgets[layer].dense);
        if (expected.is_null()) {
          EXPECT_GE(budgets[layer].rows.total(), tokens);  // everything stays
        } else {
          EXPECT_EQ(budgets[layer].rows.heavy, expected[layer].get<int>()) << variant.preset << " layer " << layer;
        }
      }
    }
  }
  EXPECT_EQ(runs, 9);
}

TEST(GoldenTest, PyramidKvKeepsTheReferenceRowsInEveryLayer) {
  int runs = 0;
  for (const auto& json : GoldenCases("pyramidkv")) {
    if (json.at("name") != "select_gqa") continue;
    ++runs;
    const auto& params = json.at("params");
    const CompressionSpec spec = WindowSpec("pyramidkv", params);
    const int layers = params.at("layers");
    for (int i = 0; i < layers; ++i) {
      const GoldenLayer layer(json.at("layers")[i], params.at("heads"));
      const RowBudget budget = Budgets(spec, layers, layer.tokens, params.at("capacity"))[i].rows;
      EXPECT_EQ(budget.heavy, json.at("past")[i].get<int>());
      EXPECT_EQ(Kept(spec, budget, layer, PastScores(layer, spec)), json.at("layers")[i].at("kept").get<IntRows>());
    }
  }
  EXPECT_EQ(runs, 1);
}

TEST(GoldenTest, AdaKvCountsBudgetsAndKeptRowsEqualTheReference) {
  int runs = 0, short_prompts = 0;
  for (const auto& json : GoldenCases("adakv")) {
    if (!json.contains("expect")) continue;
    ++runs;
    SCOPED_TRACE(json.at("name").get<std::string>());
    const auto& params = json.at("params");
    const GoldenLayer layer(json, params.at("heads"));
    const CompressionSpec spec = WindowSpec("ada-snapkv", params);
    const std::vector<std::vector<float>> scores = PastScores(layer, spec);
    const auto& expect = json.at("expect");
    const Tensor expected_scores = test::ToTensor(expect.at("score"));
    for (int head = 0; head < layer.storage_heads; ++head) ExpectClose(scores[head], expected_scores.row(head));
    const RowBudget average = Budgets(spec, 1, layer.tokens, params.at("capacity"))[0].rows;
    EXPECT_EQ(Kept(spec, average, layer, scores), expect.at("kept").get<IntRows>());
    if (expect.at("budget").is_null()) {
      ++short_prompts;
      continue;
    }
    const AdaOptions options = {.floor = spec.ada_floor, .normalize = spec.ada_normalize};
    EXPECT_EQ(AdaPastRows(scores, average.heavy, options).count, expect.at("count").get<std::vector<int>>());
    EXPECT_EQ(Heavy(HeadBudgets(spec, average, scores)), expect.at("budget").get<std::vector<int>>());
  }
  EXPECT_EQ(runs, 6);
  EXPECT_EQ(short_prompts, 1);
}

TEST(GoldenTest, AdaPyramidCountsBudgetsAndKeptRowsEqualTheReference) {
  int runs = 0;
  for (const auto& json : GoldenCases("adakv")) {
    if (!json.contains("layers")) continue;
    ++runs;
    const auto& params = json.at("params");
    const CompressionSpec spec = WindowSpec("ada-pyramidkv", params);
    const int layers = params.at("layers");
    for (int i = 0; i < layers; ++i) {
      SCOPED_TRACE(i);
      const auto& expect = json.at("layers")[i];
      const GoldenLayer layer(expect, params.at("heads"));
      const RowBudget average = Budgets(spec, layers, layer.tokens, params.at("capacity"))[i].rows;
      EXPECT_EQ(average.heavy, json.at("past")[i].get<int>());
      const std::vector<std::vector<float>> scores = PastScores(layer, spec);
      const AdaRows ada = AdaPastRows(scores, average.heavy, {.floor = spec.ada_floor, .normalize = false});
      EXPECT_EQ(ada.count, expect.at("count").get<std::vector<int>>());
      EXPECT_EQ(Heavy(HeadBudgets(spec, average, scores)), expect.at("budget").get<std::vector<int>>());
      EXPECT_EQ(Kept(spec, average, layer, scores), expect.at("kept").get<IntRows>());
    }
  }
  EXPECT_EQ(runs, 1);
}

// Attention rows of all query heads for the last `last` queries.
std::vector<float> LastRows(const GoldenLayer& layer, int last) {
  std::vector<float> rows;
  for (int head = 0; head < layer.storage_heads; ++head) {
    const std::vector<float> part = layer.Probabilities(head, layer.tokens - last, layer.tokens, layer.tokens);
    rows.insert(rows.end(), part.begin(), part.end());
  }
  return rows;
}

// The same ratio from log-sum-exps: what a flash kernel gives, and logits over the first and last keys only.
double RatioFromLogSumExp(const GoldenLayer& layer, int last, int sinks, int recent) {
  std::vector<float> set_logits, log_sum_exp;
  for (int head = 0; head < layer.query_heads; ++head) {
    const int kv_head = head * layer.k.shape[0] / layer.query_heads;
    for (int position = layer.tokens - last; position < layer.tokens; ++position) {
      double sum = 0;
      for (int j = 0; j < layer.tokens; ++j) {
        double logit = 0;
        for (int c = 0; c < layer.head_dim; ++c) {
          logit += double{layer.q.row(head, position)[c]} * layer.k.row(kv_head, j)[c] / std::sqrt(layer.head_dim);
        }
        if (j <= position) sum += std::exp(logit);
        if (j < sinks || j >= layer.tokens - recent) {
          set_logits.push_back(j <= position ? static_cast<float>(logit) : -std::numeric_limits<float>::infinity());
        }
      }
      log_sum_exp.push_back(static_cast<float>(std::log(sum)));
    }
  }
  return LazyRatioFromLogSumExp(set_logits, log_sum_exp);
}

TEST(GoldenTest, LightTransferRatiosCutsAndKeptRowsEqualTheReference) {
  int runs = 0;
  for (const auto& json : GoldenCases("lighttransfer")) {
    SCOPED_TRACE(runs++);
    const auto& params = json.at("params");
    const int layers = params.at("layers"), tokens = params.at("n"), last = params.at("w_last");
    CompressionSpec spec = FindPreset("lighttransfer")->make();
    spec.lazy_sinks = params.at("w_sink");
    spec.lazy_recent = params.at("w_recent");
    spec.lazy_last = last;
    EXPECT_EQ(FullLayers(spec, layers), params.at("full_layers").get<int>());  // the default share of a half
    std::vector<double> ratios;
    std::vector<std::vector<int>> events;
    LazyLayerQueue queue(FullLayers(spec, layers));
    for (int i = 0; i < layers; ++i) {
      const GoldenLayer layer(json.at("layers")[i], "kv");
      const double expected = json.at("expect").at("ratio")[i];
      ratios.push_back(LazyRatio(LastRows(layer, last), tokens, spec.lazy_sinks, spec.lazy_recent));
      EXPECT_NEAR(ratios[i], expected, 1e-4 * expected);
      EXPECT_NEAR(RatioFromLogSumExp(layer, last, spec.lazy_sinks, spec.lazy_recent), expected, 1e-4 * expected);
      if (const std::optional<int> cut = queue.Push(i, ratios[i]); cut.has_value()) events.push_back({i, *cut});
      EXPECT_LE(queue.whole(), FullLayers(spec, layers));
    }
    const bool fits = tokens <= spec.lazy_sinks + spec.lazy_recent;
    const std::vector<int> lazy = LazyLayers(spec, ratios);
    if (!fits) {  // else the reference lists no cut: there is nothing to cut
      EXPECT_EQ(events, json.at("expect").at("events").get<std::vector<std::vector<int>>>());
      EXPECT_EQ(lazy, json.at("expect").at("lazy").get<std::vector<int>>());
    }
    LayerBudgetInput input;
    input.layers = layers;
    input.tokens = tokens;
    input.kept_rows = tokens;  // no budget binds
    input.lazy_layers = lazy;
    const std::vector<LayerBudget> budgets = LayerBudgets(spec, input);
    for (int i = 0; i < layers; ++i) {
      const bool is_lazy = std::find(lazy.begin(), lazy.end(), i) != lazy.end();
      EXPECT_EQ(budgets[i].dense, !is_lazy);
      if (is_lazy) {
        EXPECT_EQ(SelectRows(tokens, {}, budgets[i].rows).kept,
                  json.at("expect").at("kept_lazy").get<std::vector<int32_t>>());
      }
    }
  }
  EXPECT_EQ(runs, 3);
}

}  // namespace
}  // namespace tidepool
