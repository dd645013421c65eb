// FastGen (arXiv 2310.01801): at the end of the prompt each head gets the cheapest of five policies that recovers its
// attention: special tokens, punctuation, heavy hitters, a window, everything. Heads share what their layer has by what
// each of them needs.
#include <algorithm>

#include "policies/retain/head_portfolio.h"
#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

class FastGenScorer final : public HeadScorer {
 public:
  struct Options {
    int queries = 1;
    double recovered = 0;
    double heavy_share = 0;
    double window_share = 0;
    int sinks = 0;
  };
  explicit FastGenScorer(const Options& options)
      : options_(options), portfolio_(FastGenPortfolio(options.heavy_share, options.window_share)) {}

  void OnPrompt(const HeadView& view) override {
    const AttentionRows attention = view.Attention(options_.queries);
    sums_ = AttentionSums(attention.probabilities, attention.queries, attention.keys);
    const Places places = PlacesOf(view);
    PortfolioInput input = {.rows = RowsAt(places), .attention = attention.probabilities, .queries = attention.queries};
    input.least_recovered = options_.recovered;
    policy_ = ChooseHeadPolicy(portfolio_, input).policy;
  }
  void OnStep(const HeadView& view) override {
    sums_.resize(view.rows(), 0.0f);
    const AttentionRows attention = view.Attention(1);
    const std::vector<float> received = AttentionSums(attention.probabilities, 1, attention.keys);
    for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += received[i];
  }
  std::vector<float> Scores(const HeadView& view, int) override {
    const Places places = PlacesOf(view);
    return PolicyScores(portfolio_[policy_], RowsAt(places));
  }
  void Keep(absl::Span<const int32_t> kept) override {
    std::vector<float> sums;
    for (int32_t i : kept) sums.push_back(sums_[i]);
    sums_ = std::move(sums);
  }

 private:
  struct Places {
    std::vector<int32_t> positions;
    std::vector<TokenClass> classes;
  };
  static Places PlacesOf(const HeadView& view) {
    Places places;
    for (int row = 0; row < view.rows(); ++row) {
      places.positions.push_back(view.position(row));
      places.classes.push_back(view.token_class(row));
    }
    return places;
  }
  PortfolioRows RowsAt(const Places& places) const {
    return {.positions = places.positions, .classes = places.classes, .attention_sum = sums_, .sinks = options_.sinks};
  }

  const Options options_;
  const std::vector<HeadPolicy> portfolio_;
  int policy_ = 0;           // for the rest of the turn
  std::vector<float> sums_;  // by row: attention of the probed queries and of every step since, mean over the group
};

class FastGenScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "fastgen"; }
  bool keeps_row_state() const override { return true; }
  absl::Span<const ScoreOption> options() const override {
    static constexpr ScoreOption kOptions[] = {
        {"queries", 64, 1, 1024}, {"recovered", 0.9, 0, 1}, {"heavy", 0.3, 0, 1}, {"window", 0.3, 0, 1}};
    return kOptions;
  }
  int Queries(const CompressionSpec& spec) const override { return static_cast<int>(OptionOf(spec, *this, "queries")); }
  int Window(const CompressionSpec&) const override { return 1; }
  int LeastRows(const CompressionSpec& spec) const override { return std::max(2, spec.sink_tokens + 1); }
  std::string_view least_fields() const override { return "sink_tokens + 1, at least two"; }
  RowBudget Split(const CompressionSpec& spec, int total) const override {
    const int recent = std::min(1, total);
    return {.sinks = spec.sink_tokens, .heavy = total - recent, .recent = recent};
  }
  bool leaves_room() const override { return true; }
  bool follows_steps() const override { return true; }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<FastGenScorer>(FastGenScorer::Options{.queries = Queries(spec),
                                                                  .recovered = OptionOf(spec, *this, "recovered"),
                                                                  .heavy_share = OptionOf(spec, *this, "heavy"),
                                                                  .window_share = OptionOf(spec, *this, "window"),
                                                                  .sinks = spec.sink_tokens});
  }
};

}  // namespace

Preset FastGenPreset() {
  static const FastGenScore score;
  return {"fastgen",
          "FastGen: each head the cheapest of special tokens, punctuation, heavy hitters and a window that holds its "
          "attention (arXiv 2310.01801)",
          [] {
            return SpecOf(
                "fastgen",
                {.head_budget = HeadBudgetRule::kNeeded, .score = "fastgen", .schedule = Schedule::kPrefillAndStep});
          },
          &score};
}

}  // namespace tidepool
