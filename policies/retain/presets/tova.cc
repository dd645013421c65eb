// TOVA (arXiv 2401.06104): what the last token attends to, one set for all heads of a layer.
#include "base/check.h"
#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

class LastRowScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "last-row"; }
  int Queries(const CompressionSpec&) const override { return 1; }
  bool layer_wide() const override { return true; }  // the newest row competes with the others: no window
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec&) const override { return nullptr; }
  std::vector<float> LayerScores(absl::Span<const HeadView* const> heads) const override {
    TIDEPOOL_CHECK(!heads.empty());
    std::vector<float> probabilities;  // [query heads][rows]
    for (const HeadView* head : heads) {
      const AttentionRows attention = head->Attention(1);
      probabilities.insert(probabilities.end(), attention.probabilities.begin(), attention.probabilities.end());
    }
    return LastRowScores(probabilities, static_cast<int>(heads.size()) * heads[0]->group());
  }
};

}  // namespace

Preset TovaPreset() {
  static const LastRowScore score;
  return {"tova", "TOVA: what the last token attends to, one set for each layer, at every step (arXiv 2401.06104)",
          [] {
            return SpecOf(
                "tova",
                {.head_budget = HeadBudgetRule::kLayerSet, .score = "last-row", .schedule = Schedule::kPrefillAndStep});
          },
          &score};
}

}  // namespace tidepool
