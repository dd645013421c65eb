// H2O (arXiv 2306.14048): heavy hitters by accumulated attention, and the last rows; and D2O (arXiv 2406.13035), which
// adds layer budgets, sinks and merging.
#include <algorithm>

#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

class ColumnScorer final : public HeadScorer {
 public:
  explicit ColumnScorer(const CompressionSpec& spec) : spec_(spec) {}
  std::vector<float> Scores(const HeadView& view, int) override { return view.ColumnSums(spec_.group_reduce); }

 private:
  const CompressionSpec& spec_;
};

class ColumnScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "column"; }
  bool needs_column_sums() const override { return true; }
  bool is_column_sums() const override { return true; }
  int LeastRows(const CompressionSpec& spec) const override { return std::max(2, spec.sink_tokens + 1); }
  std::string_view least_fields() const override { return "sink_tokens + 1, at least a heavy one and a recent one"; }
  RowBudget Split(const CompressionSpec& spec, int total) const override {
    RowBudget rows;
    rows.sinks = spec.sink_tokens;
    rows.recent = std::clamp(static_cast<int>(total * spec.recent_share), 1, total);
    rows.heavy = total - rows.recent;
    return rows;
  }
  // D2O's code cuts heavy and recent to whole rows one by one. The small term undoes the rounding of the share where a
  // product is a whole number.
  RowBudget SplitShare(const CompressionSpec& spec, int tokens, double share) const override {
    RowBudget rows;
    rows.sinks = spec.sink_tokens;
    rows.heavy = std::max(1, static_cast<int>(tokens * share * (1 - spec.recent_share) + 1e-9));
    rows.recent = std::max(1, static_cast<int>(tokens * share * spec.recent_share + 1e-9));
    return rows;
  }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<ColumnScorer>(spec);
  }
};

}  // namespace

Preset H2oPreset() {
  static const ColumnScore score;
  return {"h2o", "H2O: heavy hitters by accumulated attention, and the last tokens, at every step (arXiv 2306.14048)",
          [] {
            CompressionSpec spec = SpecOf("h2o", {.score = "column", .schedule = Schedule::kPrefillAndStep});
            spec.sink_tokens = 0;  // the first tokens have to earn their place
            return spec;
          },
          &score};
}

Preset D2oPreset() {
  return {"d2o",
          "D2O: layer budgets by attention variance, heavy hitters, similar evicted tokens merged (arXiv 2406.13035)",
          [] {
            return SpecOf("d2o", {.layer_budget = LayerBudgetRule::kVariance,
                                  .score = "column",
                                  .schedule = Schedule::kPrefillAndStep,
                                  .fate = Fate::kMerge});
          }};
}

}  // namespace tidepool
