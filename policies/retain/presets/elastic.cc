// Elastic Cache (arXiv 2407.18121): the most attended rows of the prompt, what is evicted averaged into the nearest of
// them; while decoding, the row at a fixed distance from the end leaves. PrefixKV (arXiv 2412.03409) and ZipVL (arXiv
// 2410.08584): the same share of the attention in every layer. All three were published for models with pictures;
// nothing in them asks for one.
#include <algorithm>
#include <cstdlib>

#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

class PromptColumnScorer final : public HeadScorer {
 public:
  PromptColumnScorer(const CompressionSpec& spec, int distance) : spec_(spec), distance_(distance) {}

  void OnPrompt(const HeadView&) override { decoding_ = false; }
  void OnStep(const HeadView&) override { decoding_ = true; }
  std::vector<float> Scores(const HeadView& view, int past) override {
    if (!decoding_) return view.ColumnSums(spec_.group_reduce);
    // The nearer to the one that is to go, the sooner; when several have to, those around it.
    const int leaves = std::clamp(view.rows() - distance_, 0, past - 1);
    std::vector<float> scores;
    for (int row = 0; row < past; ++row) scores.push_back(static_cast<float>(std::abs(row - leaves)));
    return scores;
  }

 private:
  const CompressionSpec& spec_;
  const int distance_;
  bool decoding_ = false;
};

class PromptColumnScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "prompt-column"; }
  absl::Span<const ScoreOption> options() const override {
    static constexpr ScoreOption kOptions[] = {{"distance", 25, 1, 4096}};
    return kOptions;
  }
  bool needs_column_sums() const override { return true; }
  int Window(const CompressionSpec&) const override { return 1; }
  int LeastRows(const CompressionSpec& spec) const override { return std::max(2, spec.sink_tokens + 1); }
  std::string_view least_fields() const override { return "sink_tokens + 1, at least two"; }
  RowBudget Split(const CompressionSpec& spec, int total) const override {
    const int recent = std::min(1, total);
    return {.sinks = spec.sink_tokens, .heavy = total - recent, .recent = recent};
  }
  bool follows_steps() const override { return true; }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<PromptColumnScorer>(spec, static_cast<int>(OptionOf(spec, *this, "distance")));
  }
};

}  // namespace

Preset ElasticPreset() {
  static const PromptColumnScore score;
  return {"elastic", "Elastic Cache: evicted rows averaged into the nearest kept one (arXiv 2407.18121)",
          [] {
            return SpecOf(
                "elastic",
                {.score = "prompt-column", .schedule = Schedule::kPrefillAndStep, .fate = Fate::kMergeNearest});
          },
          &score};
}

Preset PrefixKvPreset() {
  return {"prefixkv", "PrefixKV: every layer keeps the same share of the prompt's attention (arXiv 2412.03409)", [] {
            return SpecOf("prefixkv", {.layer_budget = LayerBudgetRule::kEqualMass,
                                       .score = "prompt-column",
                                       .schedule = Schedule::kPrefillAndStep});
          }};
}

Preset ZipVlPreset() {
  return {"zipvl", "ZipVL: the same, by what probe queries attend to (arXiv 2410.08584)", [] {
            CompressionSpec spec = SpecOf("zipvl", {.layer_budget = LayerBudgetRule::kEqualMass, .score = "window"});
            spec.window_tokens = 64;
            spec.pooling = Pooling::kNone;
            return spec;
          }};
}

}  // namespace tidepool
