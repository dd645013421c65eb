// H2O, TOVA, AhaKV and D2O over a prompt and the steps after it, against tests/data/policies.
#include <optional>

#include "gtest/gtest.h"
#include "policies/retain/aha_scores.h"
#include "policies/retain/layer_budget.h"
#include "policies/retain/merge.h"
#include "policies/retain/preset_table.h"
#include "policies/retain/select.h"
#include "policies/retain/token_scores.h"
#include "tests/policies/golden.h"
#include "tests/policies/reference_attention.h"

namespace tidepool {
namespace {

using test::AttentionRow;
using test::ExpectClose;
using test::GoldenCases;
using test::GoldenLayer;
using test::Tensor;
using test::ToTensor;
using IntRows = std::vector<std::vector<int32_t>>;

// Resident rows of one storage head, by ascending position.
struct Resident {
  std::vector<int32_t> positions;
  std::vector<float> scores;  // column sums, reduced over the group
  std::vector<float> keys, values;

  void Append(const GoldenLayer& layer, int head, int position) {
    positions.push_back(position);
    keys.insert(keys.end(), layer.key(head, position), layer.key(head, position) + layer.head_dim);
    if (layer.v.data.empty()) return;
    values.insert(values.end(), layer.value(head, position), layer.value(head, position) + layer.head_dim);
  }
  void Keep(const std::vector<int32_t>& rows, int head_dim) {
    Resident kept;
    for (int32_t i : rows) {
      kept.positions.push_back(positions[i]);
      kept.scores.push_back(scores[i]);
    }
    kept.keys = Gather(keys, rows, head_dim);
    kept.values = Gather(values, rows, head_dim);
    *this = std::move(kept);
  }
  static std::vector<float> Gather(const std::vector<float>& from, const std::vector<int32_t>& rows, int head_dim) {
    std::vector<float> out;
    if (from.empty()) return out;
    for (int32_t i : rows) out.insert(out.end(), from.begin() + i * head_dim, from.begin() + (i + 1) * head_dim);
    return out;
  }
};

std::vector<Resident> Prompt(const GoldenLayer& layer, int prompt) {
  std::vector<Resident> heads(layer.storage_heads);
  for (int head = 0; head < layer.storage_heads; ++head) {
    for (int i = 0; i < prompt; ++i) heads[head].Append(layer, head, i);
    heads[head].scores = ReduceGroup(layer.ColumnSums(head, prompt, prompt), layer.group, GroupReduce::kMean);
  }
  return heads;
}

// One decoding step: the new row joins, and every score grows by the new query's attention to it.
void Step(const GoldenLayer& layer, int position, std::vector<Resident>& heads) {
  for (int head = 0; head < layer.storage_heads; ++head) {
    Resident& resident = heads[head];
    resident.Append(layer, head, position);
    std::vector<const float*> keys;
    for (size_t i = 0; i < resident.positions.size(); ++i) keys.push_back(resident.keys.data() + i * layer.head_dim);
    std::vector<float> rows;
    for (int member = 0; member < layer.group; ++member) {
      for (double p : AttentionRow(layer.query(head, member, position), keys, layer.head_dim)) {
        rows.push_back(static_cast<float>(p));
      }
    }
    const std::vector<float> row = ReduceGroup(rows, layer.group, GroupReduce::kMean);
    resident.scores.push_back(0.0f);
    for (size_t i = 0; i < row.size(); ++i) resident.scores[i] += row[i];
  }
}

IntRows Positions(const std::vector<Resident>& heads) {
  IntRows out;
  for (const Resident& head : heads) out.push_back(head.positions);
  return out;
}

TEST(GoldenTest, H2oScoresAndKeptRowsEqualTheReferenceAfterEveryStep) {
  int runs = 0;
  for (const auto& json : GoldenCases("h2o")) {
    if (!json.at("expect").contains("kept")) continue;
    ++runs;
    SCOPED_TRACE(json.at("name").get<std::string>());
    const auto& params = json.at("params");
    const GoldenLayer layer(json, params.at("heads"));
    const int prompt = params.at("prompt");
    LayerBudgetInput input;
    input.layers = 1;
    input.tokens = prompt;
    input.kept_rows = params.at("heavy").get<int>() + params.at("recent").get<int>();
    const RowBudget budget = LayerBudgets(PresetSpec("h2o").value(), input)[0].rows;
    ASSERT_EQ(budget.heavy, params.at("heavy").get<int>());
    ASSERT_EQ(budget.recent, params.at("recent").get<int>());
    std::vector<Resident> heads = Prompt(layer, prompt);
    const Tensor scores = ToTensor(json.at("expect").at("prompt_score"));
    for (int head = 0; head < layer.storage_heads; ++head) ExpectClose(heads[head].scores, scores.row(head));
    const auto& trace = json.at("expect").at("kept");
    ASSERT_EQ(static_cast<int>(trace.size()), layer.tokens - prompt + 1);
    for (size_t step = 0; step < trace.size(); ++step) {
      if (step > 0) Step(layer, prompt + static_cast<int>(step) - 1, heads);
      for (Resident& head : heads) {
        head.Keep(SelectRows(static_cast<int>(head.positions.size()), head.scores, budget).kept, layer.head_dim);
      }
      ASSERT_EQ(Positions(heads), trace[step].get<IntRows>()) << "step " << step;
    }
  }
  EXPECT_EQ(runs, 4);
}

TEST(GoldenTest, ColumnSumsGatheredInChunksEqualTheReference) {
  for (const auto& json : GoldenCases("h2o")) {
    if (!json.at("params").contains("chunk")) continue;
    const GoldenLayer layer(json, json.at("params").at("heads"));
    const Tensor expected = ToTensor(json.at("expect").at("prompt_score"));
    for (int head = 0; head < layer.storage_heads; ++head) {
      const std::vector<float> sums = layer.ColumnSums(head, layer.tokens, json.at("params").at("chunk"));
      ExpectClose(ReduceGroup(sums, layer.group, GroupReduce::kMean), expected.row(head));
    }
    return;
  }
  FAIL() << "no chunked case";
}

TEST(GoldenTest, TovaKeepsTheReferenceRowsOfTheLayerAfterEveryStep) {
  int runs = 0;
  for (const auto& json : GoldenCases("tova")) {
    SCOPED_TRACE(json.at("name").get<std::string>());
    ++runs;
    const GoldenLayer layer(json, "query");  // every query head has a say, over the one set of the layer
    const int prompt = json.at("params").at("prompt");
    LayerBudgetInput input;
    input.layers = 1;
    input.tokens = prompt;
    input.kept_rows = json.at("params").at("size");
    const RowBudget budget = LayerBudgets(FindPreset("tova")->make(), input)[0].rows;
    EXPECT_EQ(budget.recent, 0);  // nothing is protected
    std::vector<int32_t> positions(prompt);
    for (int i = 0; i < prompt; ++i) positions[i] = i;
    const auto& trace = json.at("expect").at("kept");
    ASSERT_EQ(static_cast<int>(trace.size()), layer.tokens - prompt + 1);
    for (size_t step = 0; step < trace.size(); ++step) {
      if (step > 0) positions.push_back(prompt + static_cast<int>(step) - 1);
      const int newest = prompt + static_cast<int>(step) - 1;
      std::vector<float> rows;  // [query heads][resident]
      for (int head = 0; head < layer.query_heads; ++head) {
        std::vector<const float*> keys;
        for (int32_t position : positions) keys.push_back(layer.key(head, position));
        for (double p : AttentionRow(layer.query(head, 0, newest), keys, layer.head_dim)) {
          rows.push_back(static_cast<float>(p));
        }
      }
      const std::vector<float> scores = LastRowScores(rows, layer.query_heads);
      std::vector<int32_t> kept;
      for (int32_t i : SelectRows(static_cast<int>(positions.size()), scores, budget).kept)
        kept.push_back(positions[i]);
      positions = kept;
      ASSERT_EQ(positions, trace[step].get<std::vector<int32_t>>()) << "step " << step;
    }
  }
  EXPECT_EQ(runs, 3);
}

// One row of AhaKV's softmax of a storage head, reduced over its group; `seen` tokens up to the query's own.
std::vector<float> AhaRow(const GoldenLayer& layer, int head, int position, const std::vector<int32_t>& positions,
                          int budget) {
  std::vector<const float*> keys;
  for (int32_t p : positions) keys.push_back(layer.key(head, p));
  const auto scale = static_cast<float>(AhaQueryScale(position + 1, budget));
  std::vector<float> rows;
  for (int member = 0; member < layer.group; ++member) {
    std::vector<float> query(layer.query(head, member, position), layer.query(head, member, position) + layer.head_dim);
    for (float& x : query) x *= scale;
    for (double p : AttentionRow(query.data(), keys, layer.head_dim)) rows.push_back(static_cast<float>(p));
  }
  return ReduceGroup(rows, layer.group, GroupReduce::kMean);
}

TEST(GoldenTest, AhaKvScoresAndKeptRowsEqualTheReferenceAfterEveryStep) {
  int runs = 0;
  for (const auto& json : GoldenCases("ahakv")) {
    if (json.at("name") == "scale") continue;
    SCOPED_TRACE(json.at("name").get<std::string>());
    ++runs;
    const auto& params = json.at("params");
    const GoldenLayer layer(json, params.at("heads"));
    const int prompt = params.at("prompt");
    CompressionSpec spec = FindPreset("ahakv")->make();
    spec.aha_recent = params.at("recent");
    spec.aha_value_kernel = params.at("value_kernel");
    LayerBudgetInput input;
    input.layers = 1;
    input.tokens = prompt;
    input.kept_rows = params.at("budget");
    const RowBudget budget = LayerBudgets(spec, input)[0].rows;
    ASSERT_EQ(budget.recent, spec.aha_recent);
    ASSERT_EQ(budget.total(), input.kept_rows);
    const auto& expect = json.at("expect");
    for (int head = 0; head < layer.storage_heads; ++head) {
      AhaScores state(spec.aha_recent, spec.aha_value_kernel);
      std::vector<int32_t> positions(prompt);
      for (int i = 0; i < prompt; ++i) positions[i] = i;
      std::vector<float> attention;
      for (int position = prompt - spec.aha_recent; position < prompt; ++position) {
        std::vector<int32_t> seen(positions.begin(), positions.begin() + position + 1);
        std::vector<float> row = AhaRow(layer, head, position, seen, input.kept_rows);
        row.resize(prompt, 0.0f);
        attention.insert(attention.end(), row.begin(), row.end());
      }
      const absl::Span<const float> values(layer.value(head, 0), static_cast<size_t>(layer.tokens) * layer.head_dim);
      const std::vector<double> norms = SquaredNorms(values, layer.head_dim);
      state.SetPrompt(attention, absl::MakeConstSpan(norms).first(prompt));
      if (expect.contains("prompt_score")) {
        ExpectClose(state.Scores(), ToTensor(expect.at("prompt_score")).row(head));
      }
      const auto& trace = expect.at("kept");
      ASSERT_EQ(static_cast<int>(trace.size()), layer.tokens - prompt + 1);
      for (size_t step = 0; step < trace.size(); ++step) {
        if (step > 0) {
          const int position = prompt + static_cast<int>(step) - 1;
          positions.push_back(position);
          state.Append(norms[position], AhaRow(layer, head, position, positions, input.kept_rows));
        }
        const std::vector<int32_t> rows = SelectRows(state.rows(), state.Scores(), budget).kept;
        state.Keep(rows);
        std::vector<int32_t> kept;
        for (int32_t i : rows) kept.push_back(positions[i]);
        positions = kept;
        ASSERT_EQ(positions, trace[step][head].get<std::vector<int32_t>>()) << "step " << step << " head " << head;
      }
    }
  }
  EXPECT_EQ(runs, 5);
}

TEST(GoldenTest, AhaKvScalesEqualTheReference) {
  int runs = 0;
  for (const auto& json : GoldenCases("ahakv")) {
    if (json.at("name") != "scale") continue;
    for (const auto& value : json.at("expect").at("values")) {
      ++runs;
      const double expected = value[3];
      EXPECT_NEAR(AhaLambda(value[0], value[1], value[2]), expected, 1e-12);
      EXPECT_NEAR(AhaQueryScale(value[0], value[1]), expected * std::sqrt(value[2].get<double>()), 1e-12);
    }
  }
  EXPECT_EQ(runs, 5);
}

// What one compression of all heads did.
struct Compression {
  std::vector<Selection> selections;
  IntRows evicted;  // positions
  MergeResult merge;
};

std::optional<Compression> Compress(std::vector<Resident>& heads, const RowBudget& budget, int head_dim,
                                    const MergeOptions& options, MergeState& state) {
  if (static_cast<int>(heads[0].positions.size()) <= budget.total()) return std::nullopt;
  Compression out;
  std::vector<std::vector<float>> evicted_keys, evicted_values;
  for (Resident& head : heads) {
    const Selection selection = SelectRows(static_cast<int>(head.positions.size()), head.scores, budget);
    std::vector<int32_t>& positions = out.evicted.emplace_back();
    for (int32_t i : selection.evicted) positions.push_back(head.positions[i]);
    evicted_keys.push_back(Resident::Gather(head.keys, selection.evicted, head_dim));
    evicted_values.push_back(Resident::Gather(head.values, selection.evicted, head_dim));
    head.Keep(selection.kept, head_dim);
  }
  std::vector<MergeHead> merge;
  for (size_t i = 0; i < heads.size(); ++i) {
    merge.push_back({heads[i].keys.data(), heads[i].values.data(), static_cast<int>(heads[i].positions.size()),
                     evicted_keys[i].data(), evicted_values[i].data()});
  }
  out.merge = MergeEvicted(merge, static_cast<int>(out.evicted[0].size()), head_dim, options, state);
  return out;
}

void ExpectRows(const std::vector<Resident>& heads, const Tensor& keys, const Tensor& values) {
  const size_t size = static_cast<size_t>(keys.shape[1]) * keys.shape[2];
  for (size_t i = 0; i < heads.size(); ++i) {
    ExpectClose(heads[i].keys, absl::MakeConstSpan(keys.data).subspan(i * size, size), 1e-4, 1e-5);
    ExpectClose(heads[i].values, absl::MakeConstSpan(values.data).subspan(i * size, size), 1e-4, 1e-5);
  }
}

TEST(GoldenTest, D2oSelectionThresholdAndMergedRowsEqualTheReference) {
  int official = 0, paper = 0, at_prefill = 0;
  for (const auto& json : GoldenCases("d2o")) {
    if (!json.at("expect").contains("steps")) continue;
    SCOPED_TRACE(json.at("name").get<std::string>());
    const auto& params = json.at("params");
    const GoldenLayer layer(json, params.at("heads"));
    MergeOptions options;
    options.mode = params.at("mode") == "official" ? MergeMode::kOfficial : MergeMode::kPaper;
    options.alpha = params.at("ema_alpha");
    options.beta = params.at("ema_beta");
    options.paper_beta = params.at("paper_beta");
    options.merge_e = params.at("merge_e");
    RowBudget budget;
    budget.sinks = params.at("sinks");
    budget.heavy = params.at("heavy");
    budget.recent = params.at("recent");
    const bool prefill = params.at("at") == "prefill";
    ++(options.mode == MergeMode::kOfficial ? official : paper);
    at_prefill += prefill;

    const int prompt = params.at("prompt");
    std::vector<Resident> heads = Prompt(layer, prompt);
    MergeState state;
    const auto& steps = json.at("expect").at("steps");
    for (size_t step = 0; step < steps.size(); ++step) {
      SCOPED_TRACE(step);
      const auto& expect = steps[step];
      const int position = prompt + static_cast<int>(step) - (prefill ? 1 : 0);
      if (position >= prompt) Step(layer, position, heads);
      const std::optional<Compression> done = Compress(heads, budget, layer.head_dim, options, state);
      ASSERT_EQ(Positions(heads), expect.at("kept").get<IntRows>());
      ASSERT_EQ(done.has_value(), expect.contains("merged"));
      ExpectRows(heads, ToTensor(expect.at("k")), ToTensor(expect.at("v")));
      if (!done) {
        EXPECT_TRUE(state.tau.empty());
        continue;
      }
      EXPECT_EQ(done->evicted, expect.at("evicted").get<IntRows>());
      EXPECT_EQ(done->merge.target, expect.at("target_slot").get<IntRows>());
      EXPECT_EQ(done->merge.merged, expect.at("merged").get<std::vector<std::vector<uint8_t>>>());
      const Tensor similarity = ToTensor(expect.at("similarity"));
      for (int head = 0; head < layer.storage_heads; ++head) {
        ExpectClose(done->merge.similarity[head], similarity.row(head));
      }
      const auto& tau = expect.at("tau");
      const auto taus = tau.is_array() ? tau.get<std::vector<double>>() : std::vector<double>{tau.get<double>()};
      ASSERT_EQ(state.tau.size(), taus.size());
      for (size_t i = 0; i < taus.size(); ++i) EXPECT_NEAR(state.tau[i], taus[i], 1e-4 * std::abs(taus[i]));
    }
  }
  EXPECT_EQ(official, 6);
  EXPECT_EQ(paper, 1);
  EXPECT_EQ(at_prefill, 1);
}

TEST(GoldenTest, D2oLayerRatiosEqualTheReference) {
  int runs = 0;
  for (const auto& json : GoldenCases("d2o")) {
    if (json.at("name") != "layer_ratios") continue;
    ++runs;
    const int layers = json.at("params").at("layers");
    std::vector<double> concentration;
    std::vector<int> dense;
    const CompressionSpec spec = PresetSpec("d2o").value();
    for (int i = 0; i < layers; ++i) {
      const GoldenLayer layer(json.at("layers")[i], "query");
      std::vector<std::vector<float>> sums;
      for (int head = 0; head < layer.query_heads; ++head) {
        sums.push_back(layer.ColumnSums(head, layer.tokens, layer.tokens));
      }
      const std::vector<absl::Span<const float>> views(sums.begin(), sums.end());
      concentration.push_back(VarianceConcentration(views));
      if (IsDenseLayer(spec, i, layers)) dense.push_back(i);
    }
    const auto& expect = json.at("expect");
    const std::vector<double> ratios = VarianceRatios(concentration, json.at("params").at("rho"));
    for (int i = 0; i < layers; ++i) {
      EXPECT_NEAR(concentration[i], expect.at("F")[i].get<double>(), 1e-4 * expect.at("F")[i].get<double>());
      EXPECT_NEAR(ratios[i], expect.at("ratio")[i].get<double>(), 1e-4 * expect.at("ratio")[i].get<double>());
    }
    EXPECT_EQ(dense, expect.at("protected").get<std::vector<int>>());
  }
  EXPECT_EQ(runs, 3);
}

}  // namespace
}  // namespace tidepool
