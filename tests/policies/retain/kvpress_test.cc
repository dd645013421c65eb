// The presets that NVIDIA's kvpress has too, against what its presses keep of the same queries, keys and values
// (tests/data/kvpress, made by make_cases.py from kvpress 0.5.5). Where the two differ by design the test says how.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "gtest/gtest.h"
#include "policies/retain/expected_attention.h"
#include "policies/retain/head_budget.h"
#include "policies/retain/layer_budget.h"
#include "policies/retain/lazy_layers.h"
#include "policies/retain/preset_table.h"
#include "policies/retain/pyramid_budget.h"
#include "policies/retain/select.h"
#include "policies/retain/token_scores.h"
#include "tests/policies/golden.h"
#include "tests/policies/reference_attention.h"
#include "tests/support/paths.h"

namespace tidepool {
namespace {

using test::GoldenLayer;
using IntRows = std::vector<std::vector<int32_t>>;

struct PressCase {
  nlohmann::json json;
  GoldenLayer layer;
  int rows = 0;  // that each head keeps on average
  int window = 0;

  int past() const { return layer.tokens - window; }
  int heads() const { return layer.storage_heads; }
  IntRows kept() const { return json.at("kept").get<IntRows>(); }
};

std::vector<PressCase> CasesOf(const std::string& press) {
  const auto all = nlohmann::json::parse(test::ReadFile(test::DataPath("kvpress/cases.json")));
  std::vector<PressCase> cases;
  for (const auto& json : all.at("cases")) {
    if (json.at("press") != press) continue;
    const auto& params = json.at("params");
    PressCase& one =
        cases.emplace_back(PressCase{json, GoldenLayer(all.at("inputs").at(json.at("input").get<size_t>()), "kv")});
    if (params.contains("ratio"))
      one.rows = static_cast<int>(one.layer.tokens * (1 - params.at("ratio").get<double>()));
    one.window = params.value("window", 0);
  }
  EXPECT_FALSE(cases.empty()) << press;
  return cases;
}

// Our spec with kvpress's choices: mean pooling, whatever kernel and window the case has.
CompressionSpec WindowSpec(const char* preset, const PressCase& one) {
  CompressionSpec spec = FindPreset(preset)->make();
  spec.window_tokens = one.window;
  spec.pool_kernel = one.json.at("params").at("kernel");
  spec.pooling = Pooling::kAvg;
  return spec;
}

std::vector<std::vector<float>> PastScores(const PressCase& one, const CompressionSpec& spec) {
  const int tokens = one.layer.tokens;
  std::vector<std::vector<float>> scores;
  for (int head = 0; head < one.heads(); ++head) {
    scores.push_back(WindowScores(one.layer.Probabilities(head, one.past(), tokens, tokens), one.layer.group,
                                  one.window, tokens, one.past(), spec.group_reduce, spec.pool_kernel, spec.pooling));
  }
  return scores;
}

// `rows` of each head, the window among them.
IntRows KeptOf(const PressCase& one, const std::vector<std::vector<float>>& scores, int rows) {
  IntRows kept;
  for (const std::vector<float>& of_head : scores) {
    kept.push_back(SelectRows(one.layer.tokens, of_head, {.heavy = rows - one.window, .recent = one.window}).kept);
  }
  return kept;
}

// Probabilities of the newest query for all keys, [query heads][tokens].
std::vector<float> NewestRow(const GoldenLayer& layer) {
  std::vector<float> rows;
  for (int head = 0; head < layer.storage_heads; ++head) {
    const std::vector<float> part = layer.Probabilities(head, layer.tokens - 1, layer.tokens, layer.tokens);
    rows.insert(rows.end(), part.begin(), part.end());
  }
  return rows;
}

TEST(KvpressTest, SnapKvKeepsTheSameRows) {
  for (const PressCase& one : CasesOf("snapkv")) {
    EXPECT_EQ(KeptOf(one, PastScores(one, WindowSpec("snapkv", one)), one.rows), one.kept()) << one.json.at("params");
  }
}

TEST(KvpressTest, StreamingKeepsTheSameRows) {
  for (const PressCase& one : CasesOf("streaming")) {
    const int sinks = one.json.at("params").at("sinks");
    const Selection selection =
        SelectRows(one.layer.tokens, {}, {.sinks = sinks, .heavy = sinks, .recent = one.rows - sinks});
    EXPECT_EQ(IntRows(one.heads(), selection.kept), one.kept()) << one.json.at("params");
  }
}

// kvpress keeps the newest row in any case; in TOVA's own code, and in ours, it competes.
TEST(KvpressTest, TovaKeepsTheSameRowsBesidesTheNewest) {
  for (const PressCase& one : CasesOf("tova")) {
    std::vector<float> scores = LastRowScores(NewestRow(one.layer), one.layer.query_heads);
    const std::vector<int32_t> ours = SelectRows(one.layer.tokens, scores, {.heavy = one.rows}).kept;
    const std::vector<int32_t> others = SelectRows(one.layer.tokens, scores, {.heavy = one.rows - 1, .recent = 1}).kept;
    EXPECT_EQ(IntRows(one.heads(), others), one.kept()) << one.json.at("params");
    std::vector<int32_t> common;
    std::set_intersection(ours.begin(), ours.end(), others.begin(), others.end(), std::back_inserter(common));
    EXPECT_GE(static_cast<int>(common.size()), one.rows - 1);
  }
}

// The rows that a layer of kvpress's pyramid has include the window; PyramidKV's code, and ours, put it on top. Its
// steps are not cut to whole numbers.
TEST(KvpressTest, PyramidKvKeepsTheSameRowsOfALayerThatHasAsMany) {
  for (const PressCase& one : CasesOf("pyramidkv")) {
    const std::vector<std::vector<float>> scores = PastScores(one, WindowSpec("pyramidkv", one));
    const auto& layers = one.json.at("layers");
    for (const auto& layer : layers) EXPECT_EQ(KeptOf(one, scores, layer.at("rows")), layer.at("kept").get<IntRows>());

    const PyramidInput input = {.layers = static_cast<int>(layers.size()),
                                .tokens = one.layer.tokens,
                                .capacity = one.rows,
                                .window = 0,
                                .beta = one.json.at("params").at("beta")};
    const auto without_window = PyramidPastRows(PyramidSchedule::kAda, input);
    ASSERT_TRUE(without_window.has_value());
    for (int i = 0; i < input.layers; ++i) {
      EXPECT_NEAR((*without_window)[i], layers[i].at("rows").get<int>(), i + 1) << "layer " << i;
    }
  }
}

// Ada-KV's code, and ours, give each head a share `alpha` of the average and share out the rest by votes. kvpress takes
// the best rows of all heads, of which each head has its own best alpha * average, window included. Both keep the best
// rows of each head, and as many in all; without a safeguard they are one.
TEST(KvpressTest, AdaKvKeepsTheSameRowsWithoutSafeguardAndNestedOnesWithIt) {
  int equal = 0, nested = 0;
  for (const PressCase& one : CasesOf("ada-snapkv")) {
    CompressionSpec spec = WindowSpec("ada-snapkv", one);
    spec.ada_floor = one.json.at("params").at("alpha");
    const std::vector<std::vector<float>> scores = PastScores(one, spec);
    const std::vector<RowBudget> budgets =
        HeadBudgets(spec, {.heavy = one.rows - one.window, .recent = one.window}, scores);
    const IntRows theirs = one.kept();
    int ours_in_all = 0, theirs_in_all = 0;
    for (int head = 0; head < one.heads(); ++head) {
      const std::vector<int32_t> ours = SelectRows(one.layer.tokens, scores[head], budgets[head]).kept;
      ours_in_all += static_cast<int>(ours.size());
      theirs_in_all += static_cast<int>(theirs[head].size());
      const bool more = ours.size() > theirs[head].size();
      const std::vector<int32_t>&few = more ? theirs[head] : ours, &many = more ? ours : theirs[head];
      EXPECT_TRUE(std::includes(many.begin(), many.end(), few.begin(), few.end())) << one.json.at("params");
      if (spec.ada_floor == 0) {
        EXPECT_EQ(ours, theirs[head]);
        ++equal;
      } else {
        ++nested;
      }
    }
    // Ada-KV's code cuts the share and rounds the votes.
    EXPECT_NEAR(ours_in_all, theirs_in_all, spec.ada_floor == 0 ? 0 : one.heads());
  }
  EXPECT_GT(equal, 0);
  EXPECT_GT(nested, 0);
}

TEST(KvpressTest, ExpectedAttentionKeepsTheSameRows) {
  for (const PressCase& one : CasesOf("expected-attention")) {
    const auto& params = one.json.at("params");
    const int sinks = params.at("sinks"), tokens = one.layer.tokens, head_dim = one.layer.head_dim;
    std::vector<float> frequencies;
    for (int i = 0; i < head_dim; i += 2) {
      frequencies.push_back(
          static_cast<float>(std::pow(params.at("rope_base").get<double>(), -static_cast<double>(i) / head_dim)));
    }
    const AverageRotation rotation = RotationAhead(frequencies, tokens, params.at("positions"), /*neox=*/true);
    IntRows kept;
    for (int head = 0; head < one.heads(); ++head) {
      std::vector<QueryDistribution> group;
      for (int member = 0; member < one.layer.group; ++member) {
        const float* queries = one.layer.query(head, member, sinks);
        group.push_back(DistributionOfQueries({queries, static_cast<size_t>(tokens - sinks) * head_dim}, head_dim));
        Rotate(rotation, group.back());
      }
      std::vector<float> norms;
      for (int i = sinks; i < tokens; ++i) {
        const float* value = one.layer.value(head, i);
        norms.push_back(std::sqrt(std::inner_product(value, value + head_dim, value, 0.0f)));
      }
      const size_t size = static_cast<size_t>(tokens - sinks) * head_dim;
      std::vector<float> scores = ExpectedAttention(group, {one.layer.key(head, sinks), size}, norms);
      scores.insert(scores.begin(), sinks, 0.0f);  // they stay whatever their scores
      kept.push_back(SelectRows(tokens, scores, {.sinks = sinks, .heavy = one.rows}).kept);
    }
    EXPECT_EQ(kept, one.kept()) << params;
  }
}

// kvpress decides by the last prompt token and leaves that token out of the keys; SimLayerKV, and our preset, by the
// first new one. A lazy layer then has one recent row less until that token comes.
TEST(KvpressTest, SimLayerKvCutsTheSameLayersToTheSameRows) {
  int cut = 0, whole = 0;
  for (const PressCase& one : CasesOf("simlayerkv")) {
    const auto& params = one.json.at("params");
    const int sinks = params.at("sinks"), recent = params.at("recent"), last = params.at("last"),
              tokens = one.layer.tokens;
    const std::vector<float> newest = NewestRow(one.layer);
    std::vector<float> others;  // without the newest key
    for (int head = 0; head < one.layer.query_heads; ++head) {
      const float* const row = newest.data() + static_cast<size_t>(head) * tokens;
      others.insert(others.end(), row, row + tokens - 1);
    }
    CompressionSpec spec = FindPreset("simlayerkv")->make();
    spec.lazy_threshold = params.at("threshold");
    const double ratio = LazyRatio(others, tokens - 1, sinks, recent);
    const bool is_lazy = !LazyLayers(spec, {&ratio, 1}).empty();
    const RowBudget budget = is_lazy ? RowBudget{.sinks = sinks, .heavy = sinks, .recent = recent - last}
                                     : RowBudget{.heavy = tokens, .recent = 0};
    EXPECT_EQ(IntRows(one.heads(), SelectRows(tokens, {}, budget).kept), one.kept()) << params;
    ++(is_lazy ? cut : whole);
  }
  EXPECT_GT(cut, 0);
  EXPECT_GT(whole, 0);
}

}  // namespace
}  // namespace tidepool
