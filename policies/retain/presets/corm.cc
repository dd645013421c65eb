// CORM (arXiv 2404.15949): a row stays while it has mattered to one of the last queries, and the last rows stay; no
// budget of its own. Heads share what their layer has by what each of them needs.
#include <algorithm>
#include <optional>

#include "policies/retain/corm_history.h"
#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

class CormScorer final : public HeadScorer {
 public:
  explicit CormScorer(int queries) : queries_(queries) {}

  void OnPrompt(const HeadView& view) override {
    history_.emplace(queries_);
    const AttentionRows attention = view.Attention(queries_);
    const int32_t newest = view.position(view.rows() - 1);
    int visible = 0;
    for (int query = 0; query < attention.queries; ++query) {
      const int32_t own = newest - attention.queries + 1 + query;
      while (visible < view.rows() && view.position(visible) <= own) ++visible;
      if (visible > 0) Observe(view, attention, query, visible);  // else all that it saw has gone since
    }
  }
  void OnStep(const HeadView& view) override { Observe(view, view.Attention(1), 0, view.rows()); }
  std::vector<float> Scores(const HeadView&, int past) override { return history_->Scores(past); }
  void Keep(absl::Span<const int32_t> kept) override { history_->Keep(kept); }

 private:
  void Observe(const HeadView& view, const AttentionRows& attention, int query, int visible) {
    std::vector<float> rows;  // [group][visible]
    for (int g = 0; g < view.group(); ++g) {
      const float* row = attention.probabilities.data() + (int64_t{g} * attention.queries + query) * attention.keys;
      rows.insert(rows.end(), row, row + visible);
    }
    history_->Observe(rows, visible);
  }

  const int queries_;
  std::optional<CormHistory> history_;
};

class CormScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "corm"; }
  bool keeps_row_state() const override { return true; }
  absl::Span<const ScoreOption> options() const override {
    static constexpr ScoreOption kOptions[] = {{"queries", 256, 1, 1024}, {"recent", 256, 1, 1 << 20}};
    return kOptions;
  }
  int Queries(const CompressionSpec& spec) const override { return static_cast<int>(OptionOf(spec, *this, "queries")); }
  int LeastRows(const CompressionSpec&) const override { return 2; }
  std::string_view least_fields() const override { return "one that matters and a recent one"; }
  // Where a budget is set, half of it at most.
  RowBudget Split(const CompressionSpec& spec, int total) const override {
    const int recent = std::clamp(static_cast<int>(OptionOf(spec, *this, "recent")), 1, std::max(1, total / 2));
    return {.heavy = total - recent, .recent = recent};
  }
  bool leaves_room() const override { return true; }
  bool follows_steps() const override { return true; }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<CormScorer>(Queries(spec));
  }
};

}  // namespace

Preset CormPreset() {
  static const CormScore score;
  return {"corm", "CORM: what mattered to one of the last queries, at every step (arXiv 2404.15949)",
          [] {
            return SpecOf(
                "corm",
                {.head_budget = HeadBudgetRule::kNeeded, .score = "corm", .schedule = Schedule::kPrefillAndStep});
          },
          &score};
}

}  // namespace tidepool
