// Keyformer (arXiv 2403.09054): heavy hitters by attention that has been disturbed with Gumbel noise and, while
// decoding, flattened by a rising temperature; and the last rows.
#include <algorithm>
#include <cmath>

#include "policies/retain/keyformer_scores.h"
#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

// Queries whose attention is looked at together: bounds the memory.
constexpr int kQueriesAtOnce = 64;

class KeyformerScorer final : public HeadScorer {
 public:
  explicit KeyformerScorer(uint64_t seed) : seed_(seed) {}

  void OnPromptQueries(const HeadView& view, int count, bool) override { Add(view, count, KeyformerTemperature(0)); }
  // Rows that nobody has looked at: of steps that were not followed (Schedule::kPrefill). The last query stands for
  // theirs.
  void OnPrompt(const HeadView& view) override {
    if (static_cast<int>(sums_.size()) < view.rows()) Add(view, 1, KeyformerTemperature(steps_));
  }
  void OnStep(const HeadView& view) override { Add(view, 1, KeyformerTemperature(++steps_)); }
  std::vector<float> Scores(const HeadView&, int) override { return std::vector<float>(sums_.begin(), sums_.end()); }
  void Keep(absl::Span<const int32_t> kept) override {
    std::vector<double> sums;
    for (int32_t i : kept) sums.push_back(sums_[i]);
    sums_ = std::move(sums);
  }
  void Save(ByteWriter& out) const override {
    out.Put<int64_t>(steps_);
    out.PutVector(sums_);
  }
  void Load(ByteReader& in) override {
    steps_ = in.Get<int64_t>();
    sums_ = in.GetVector<double>();
  }

 private:
  void Add(const HeadView& view, int last, double temperature) {
    sums_.resize(view.rows(), 0.0);
    std::vector<int32_t> positions;
    for (int row = 0; row < view.rows(); ++row) positions.push_back(view.position(row));
    const AttentionRows attention = view.Attention(last);
    std::vector<float> logits;
    for (int query = 0; query < attention.queries; ++query) {
      const int64_t own = int64_t{positions.back()} - attention.queries + 1 + query;
      const auto visible =
          static_cast<size_t>(std::upper_bound(positions.begin(), positions.end(), own) - positions.begin());
      if (visible == 0) continue;
      for (int g = 0; g < view.group(); ++g) {
        const float* row = attention.probabilities.data() + (int64_t{g} * attention.queries + query) * attention.keys;
        // Logits up to a constant, which the softmax does not see.
        logits.resize(visible);
        for (size_t i = 0; i < visible; ++i) logits[i] = std::log(std::max(row[i], 1e-38f));
        const KeyformerNoise noise = {
            .seed = seed_, .layer = view.layer(), .query_head = view.kv_head() * view.group() + g};
        const std::vector<float> disturbed =
            KeyformerRow(logits, absl::MakeConstSpan(positions).first(visible), noise, own, temperature);
        for (size_t i = 0; i < visible; ++i) sums_[i] += disturbed[i];
      }
    }
  }

  const uint64_t seed_;
  int64_t steps_ = 0;
  std::vector<double> sums_;  // by row, over the query heads of the group
};

class KeyformerScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "keyformer"; }
  bool keeps_row_state() const override { return true; }
  absl::Span<const ScoreOption> options() const override {
    static constexpr ScoreOption kOptions[] = {{"seed", 0, 0, 9007199254740992.0}};
    return kOptions;
  }
  int Queries(const CompressionSpec&) const override { return kQueriesAtOnce; }
  bool follows_prompt() const override { return true; }
  bool follows_steps() const override { return true; }
  int LeastRows(const CompressionSpec&) const override { return 2; }
  std::string_view least_fields() const override { return "a heavy one and a recent one"; }
  RowBudget Split(const CompressionSpec& spec, int total) const override {
    const int recent = std::clamp(static_cast<int>(total * spec.recent_share), 1, std::max(total, 1));
    return {.heavy = total - recent, .recent = recent};
  }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<KeyformerScorer>(static_cast<uint64_t>(OptionOf(spec, *this, "seed")));
  }
};

}  // namespace

Preset KeyformerPreset() {
  static const KeyformerScore score;
  return {"keyformer",
          "Keyformer: heavy hitters under Gumbel noise, and the last tokens, at every step (arXiv 2403.09054)",
          [] { return SpecOf("keyformer", {.score = "keyformer", .schedule = Schedule::kPrefillAndStep}); }, &score};
}

}  // namespace tidepool
