// Expected Attention (arXiv 2510.00636): the attention that a row can expect from queries like the prompt's at the
// positions to come, times the size of its value. As kvpress has it: covariance included, the first tokens left out of
// the statistics and kept.
#include "policies/retain/expected_attention.h"

#include <algorithm>
#include <cmath>

#include "policies/retain/aha_scores.h"
#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

// Too few queries say nothing: then those of earlier turns that are remembered count too.
constexpr int kRemembered = 128;

class ExpectedScorer final : public HeadScorer {
 public:
  ExpectedScorer(const CompressionSpec& spec, int positions) : sinks_(spec.sink_tokens), positions_(positions) {}

  void OnPromptQueries(const HeadView& view, int count, bool first) override {
    if (first) moments_.assign(view.group(), QueryMoments(view.head_dim()));
    Add(view, count);
  }
  void OnPrompt(const HeadView& view) override {
    if (moments_.empty() || moments_[0].count() < kRemembered) {
      moments_.assign(view.group(), QueryMoments(view.head_dim()));
      Add(view, kRemembered);
    }
  }
  std::vector<float> Scores(const HeadView& view, int past) override {
    const int newest = view.position(view.rows() - 1);
    AverageRotation rotation =
        RotationAhead(view.rope().frequencies, int64_t{newest} + 1, positions_, view.rope().neox);
    for (double& x : rotation.cosine) x *= view.rope().magnitude;
    for (double& x : rotation.sine) x *= view.rope().magnitude;
    std::vector<QueryDistribution> group;
    for (const QueryMoments& moments : moments_) {
      Rotate(rotation, group.emplace_back(moments.Distribution()));
    }
    // The first rows would take most of the softmax; they stay in any case.
    const int first = std::min(sinks_, past);
    std::vector<float> norms;
    for (double square : SquaredNorms(view.Values(first, past - first), view.head_dim())) {
      norms.push_back(static_cast<float>(std::sqrt(square)));
    }
    std::vector<float> scores(first, 0.0f);
    const std::vector<float> rest = ExpectedAttention(group, view.Keys(first, past - first), norms);
    scores.insert(scores.end(), rest.begin(), rest.end());
    return scores;
  }

 private:
  void Add(const HeadView& view, int last) {
    const HeadQueries queries = view.Queries(last);
    for (int g = 0; g < view.group(); ++g) {
      for (int i = 0; i < queries.count; ++i) {
        if (queries.first_position + i < sinks_) continue;
        moments_[g].Add(absl::MakeConstSpan(queries.data)
                            .subspan((size_t{1} * g * queries.count + i) * view.head_dim(), view.head_dim()));
      }
    }
  }

  const int sinks_, positions_;
  std::vector<QueryMoments> moments_;  // by query head of the group; of this turn's prompt
};

class ExpectedScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "expected"; }
  absl::Span<const ScoreOption> options() const override {
    static constexpr ScoreOption kOptions[] = {{"positions", 512, 1, 1 << 16}};
    return kOptions;
  }
  int Queries(const CompressionSpec&) const override { return kRemembered; }
  bool follows_prompt() const override { return true; }
  bool each_step() const override { return false; }
  int LeastRows(const CompressionSpec& spec) const override { return spec.sink_tokens + 1; }
  std::string_view least_fields() const override { return "sink_tokens + 1"; }
  RowBudget Split(const CompressionSpec& spec, int total) const override {
    return {.sinks = spec.sink_tokens, .heavy = total, .recent = 0};
  }
  bool follows_steps() const override { return true; }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<ExpectedScorer>(spec, static_cast<int>(OptionOf(spec, *this, "positions")));
  }
};

}  // namespace

Preset ExpectedAttentionPreset() {
  static const ExpectedScore score;
  return {"expected-attention", "Expected Attention: what queries to come are likely to attend to (arXiv 2510.00636)",
          [] { return SpecOf("expected-attention", {.score = "expected"}); }, &score};
}

}  // namespace tidepool
