// AhaKV (arXiv 2506.03762): recent attention under a length-adaptive softmax, times the size of the values.
#include "policies/retain/aha_scores.h"
#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

class AhaScorer final : public HeadScorer {
 public:
  explicit AhaScorer(const CompressionSpec& spec) : spec_(spec), scores_(spec.aha_recent, spec.aha_value_kernel) {}

  void OnPrompt(const HeadView& view) override {
    scores_.SetPrompt(Attention(view, spec_.aha_recent), SquaredNorms(view.Values(0, view.rows()), view.head_dim()));
  }
  void OnStep(const HeadView& view) override {
    const double norm = SquaredNorms(view.Values(view.rows() - 1, 1), view.head_dim())[0];
    scores_.Append(norm, Attention(view, 1));
  }
  std::vector<float> Scores(const HeadView&, int) override { return scores_.Scores(); }
  void Keep(absl::Span<const int32_t> kept) override { scores_.Keep(kept); }

 private:
  std::vector<float> Attention(const HeadView& view, int last) const {
    const int budget = view.budget();
    const AttentionRows rows = view.Attention(
        last, [&](int32_t position) { return static_cast<float>(AhaQueryScale(int64_t{position} + 1, budget)); });
    return ReduceGroup(rows.probabilities, view.group(), spec_.group_reduce);
  }

  const CompressionSpec& spec_;
  AhaScores scores_;
};

class AhaScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "aha"; }
  bool keeps_row_state() const override { return true; }
  int Queries(const CompressionSpec& spec) const override { return spec.aha_recent; }
  int Window(const CompressionSpec& spec) const override { return spec.aha_recent; }
  std::string_view least_fields() const override { return "aha_recent + 1"; }
  bool follows_steps() const override { return true; }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<AhaScorer>(spec);
  }
};

}  // namespace

Preset AhaKvPreset() {
  static const AhaScore score;
  return {"ahakv",
          "AhaKV: recent attention with a length-adaptive softmax, times the size of the values (arXiv 2506.03762)",
          [] { return SpecOf("ahakv", {.score = "aha", .schedule = Schedule::kPrefillAndStep}); }, &score};
}

}  // namespace tidepool
