// StreamingLLM (arXiv 2309.17453): the first rows and the last ones.
#include <algorithm>

#include "policies/retain/presets/presets.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

class PositionScore final : public ScoreMethod {
 public:
  std::string_view name() const override { return "position"; }
  int LeastRows(const CompressionSpec& spec) const override { return spec.sink_tokens + 1; }
  std::string_view least_fields() const override { return "sink_tokens + 1"; }
  RowBudget Split(const CompressionSpec& spec, int total) const override {
    const int sinks = std::min(spec.sink_tokens, total - 1);
    return {.sinks = sinks, .heavy = sinks, .recent = total - sinks};
  }
  bool ranks() const override { return false; }
  std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec&) const override { return nullptr; }
};

}  // namespace

Preset StreamingPreset() {
  static const PositionScore score;
  return {"streaming", "StreamingLLM: the first tokens and the last ones (arXiv 2309.17453)",
          [] { return SpecOf("streaming", {.score = "position", .schedule = Schedule::kPrefillAndStep}); }, &score};
}

}  // namespace tidepool
