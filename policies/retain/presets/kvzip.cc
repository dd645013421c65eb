// KVzip (arXiv 2505.23416): when a prompt is in, the model is made to repeat it from its cache; the rows that this
// takes stay, the best of all layers and heads together, whatever will be asked later.
#include <algorithm>

#include "policies/retain/presets/presets.h"
#include "policies/retain/repetition_scores.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

constexpr float kUnscored = -1;

class KvZipScorer final : public HeadScorer {
 public:
  KvZipScorer(int sinks, int window) : sinks_(sinks), window_(window) {}

  void OnRepetition(const HeadView& view, const RepeatedPiece& piece, int count) override {
    RepeatedRows rows = {.rows = view.rows(), .sinks = sinks_};
    rows.first = FirstFrom(view, piece.first);
    rows.last = FirstFrom(view, piece.last);
    rows.repetition = FirstFrom(view, piece.repetition);
    Align(view, rows.repetition);
    const std::vector<float> best = RepetitionScores(view.Attention(count).probabilities, rows);
    for (int i = rows.first; i < rows.last; ++i) scores_[i] = std::max(scores_[i], best[i - rows.first]);
  }

  std::vector<float> Scores(const HeadView& view, int past) override {
    Align(view, view.rows());
    std::vector<float> scores = scores_;
    std::fill_n(scores.begin(), std::min(sinks_, view.rows()), 1.0f);
    if (std::find(scores.begin(), scores.begin() + past, kUnscored) == scores.begin() + past) return scores;
    // Written since, or never repeated because all had room: the most that the last queries give.
    const AttentionRows attention = view.Attention(window_);
    for (size_t at = 0; at < attention.probabilities.size(); at += attention.keys) {
      for (int i = 0; i < attention.keys; ++i) {
        if (i < sinks_ || scores_[i] != kUnscored) continue;
        scores[i] = std::max(scores[i], attention.probabilities[at + i]);
      }
    }
    return scores;
  }

  void Save(ByteWriter& out) const override {
    out.PutVector(positions_);
    out.PutVector(scores_);
  }
  void Load(ByteReader& in) override {
    positions_ = in.GetVector<int32_t>();
    scores_ = in.GetVector<float>();
    if (scores_.size() != positions_.size()) {  // damaged: as if nothing had been repeated
      positions_.clear();
      scores_.clear();
    }
  }

 private:
  static int FirstFrom(const HeadView& view, int32_t position) {
    int low = 0, high = view.rows();
    while (low < high) {
      const int middle = (low + high) / 2;
      if (view.position(middle) < position) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  // From now on by the first `rows` rows of the view: those that are new have no score yet.
  void Align(const HeadView& view, int rows) {
    std::vector<int32_t> positions;
    std::vector<float> scores;
    size_t old = 0;
    for (int row = 0; row < rows; ++row) {
      positions.push_back(view.position(row));
      while (old < positions_.size() && positions_[old] < positions.back()) ++old;
      const bool known = old < positions_.size() && positions_[old] == positions.back();
      scores.push_back(known ? scores_[old] : kUnscored);
    }
    positions_ = std::move(positions);
    scores_ = std::move(scores);
  }

  const int sinks_, window_;
  std::vector<int32_t> positions_;  // ascending
  std::vector<float> scores_;       // of these: 0 to 1, or kUnscored
};

class KvZipScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "kvzip"; }
  absl::Span<const ScoreOption> options() const override {
    static constexpr ScoreOption kOptions[] = {{"piece", 512, 64, 4096}};
    return kOptions;
  }
  int Queries(const CompressionSpec& spec) const override { return spec.window_tokens; }
  int Window(const CompressionSpec& spec) const override { return spec.window_tokens; }
  int LeastRows(const CompressionSpec& spec) const override { return spec.sink_tokens + spec.window_tokens + 1; }
  std::string_view least_fields() const override { return "sink_tokens + window_tokens + 1"; }
  RowBudget Split(const CompressionSpec& spec, int total) const override {
    const int recent = std::min(spec.window_tokens, total);
    return {.sinks = spec.sink_tokens, .heavy = total - recent, .recent = recent};
  }
  bool each_step() const override { return false; }
  int RepeatedTokens(const CompressionSpec& spec) const override {
    return static_cast<int>(OptionOf(spec, *this, "piece"));
  }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const override {
    return std::make_unique<KvZipScorer>(spec.sink_tokens, spec.window_tokens);
  }
};

}  // namespace

Preset KvZipPreset() {
  static const KvZipScore score;
  return {"kvzip", "KVzip: what it takes to repeat the prompt, of all layers and heads together (arXiv 2505.23416)",
          [] {
            CompressionSpec spec = SpecOf(
                "kvzip",
                {.layer_budget = LayerBudgetRule::kBestRows, .head_budget = HeadBudgetRule::kAda, .score = "kvzip"});
            spec.ada_floor = 0;  // heads compete for all rows
            return spec;
          },
          &score};
}

}  // namespace tidepool
