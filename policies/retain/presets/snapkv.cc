// SnapKV (arXiv 2404.14469): what the last prompt queries attend to, pooled; and what is built on it: PyramidKV (arXiv
// 2406.02069), Ada-SnapKV and Ada-Pyramid (arXiv 2407.11550).
#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

class WindowScorer final : public HeadScorer {
 public:
  explicit WindowScorer(const CompressionSpec& spec) : spec_(spec) {}
  std::vector<float> Scores(const HeadView& view, int past) override {
    const std::vector<float> sums =
        spec_.group_reduce == GroupReduce::kMax ? std::vector<float>() : view.SummedAttention(spec_.window_tokens);
    if (!sums.empty()) {
      return WindowScoresOfSums(sums, view.group(), spec_.window_tokens, past, spec_.group_reduce, spec_.pool_kernel,
                                spec_.pooling);
    }
    const AttentionRows attention = view.Attention(spec_.window_tokens);
    return WindowScores(attention.probabilities, view.group(), attention.queries, attention.keys, past,
                        spec_.group_reduce, spec_.pool_kernel, spec_.pooling);
  }

 private:
  const CompressionSpec& spec_;
};

class WindowScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "window"; }
  int Queries(const CompressionSpec& spec) const override { return spec.window_tokens; }
  int SummedQueries(const CompressionSpec& spec) const override {
    return spec.group_reduce == GroupReduce::kMax ? 0 : spec.window_tokens;
  }
  int Window(const CompressionSpec& spec) const override { return spec.window_tokens; }
  std::string_view least_fields() const override { return "window_tokens + 1"; }
  bool each_step() const override { return false; }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<WindowScorer>(spec);
  }
};

}  // namespace

Preset SnapKvPreset() {
  static const WindowScore score;
  return {"snapkv",
          "SnapKV: what the last prompt queries attend to, decided once at the end of the prompt (arXiv 2404.14469)",
          [] { return SpecOf("snapkv", {.score = "window"}); }, &score};
}

Preset PyramidKvPreset() {
  return {"pyramidkv", "PyramidKV: SnapKV with more rows in the lower layers than in the upper ones (arXiv 2406.02069)",
          [] {
            CompressionSpec spec = SpecOf("pyramidkv", {.layer_budget = LayerBudgetRule::kPyramid, .score = "window"});
            spec.window_tokens = 8;  // its LongBench runs; the other defaults are those of snapkv
            return spec;
          }};
}

Preset AdaSnapKvPreset() {
  return {"ada-snapkv", "Ada-SnapKV: SnapKV whose heads share the rows of a layer by their scores (arXiv 2407.11550)",
          [] { return SpecOf("ada-snapkv", {.head_budget = HeadBudgetRule::kAda, .score = "window"}); }};
}

Preset AdaPyramidKvPreset() {
  return {"ada-pyramidkv", "Ada-Pyramid: Ada-KV's heads in PyramidKV's layers (arXiv 2407.11550)", [] {
            return SpecOf(
                "ada-pyramidkv",
                {.layer_budget = LayerBudgetRule::kAdaPyramid, .head_budget = HeadBudgetRule::kAda, .score = "window"});
          }};
}

}  // namespace tidepool
