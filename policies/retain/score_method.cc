#include "policies/retain/score_method.h"

#include <algorithm>

#include "base/check.h"
#include "policies/retain/preset_table.h"

namespace tidepool {

RowBudget ScoreMethod::Split(const CompressionSpec& spec, int total) const {
  RowBudget rows;
  rows.recent = std::min(Window(spec), total);
  rows.heavy = total - rows.recent;
  return rows;
}

RowBudget ScoreMethod::SplitShare(const CompressionSpec& spec, int tokens, double share) const {
  return Split(spec, std::max(1, static_cast<int>(tokens * share + 1e-9)));
}

std::vector<float> ScoreMethod::LayerScores(absl::Span<const HeadView* const>) const {
  TIDEPOOL_CHECK(!layer_wide());
  return {};
}

const ScoreMethod* FindScore(std::string_view name) {
  for (const Preset& preset : AllPresets()) {
    if (preset.score != nullptr && preset.score->name() == name) return preset.score;
  }
  return nullptr;
}

std::vector<const ScoreMethod*> AllScores() {
  std::vector<const ScoreMethod*> methods;
  for (const Preset& preset : AllPresets()) {
    if (preset.score != nullptr) methods.push_back(preset.score);
  }
  return methods;
}

double OptionOf(const CompressionSpec& spec, const ScoreMethod& method, std::string_view name) {
  const auto given = spec.score_options.find(std::string(name));
  if (given != spec.score_options.end()) return given->second;
  for (const ScoreOption& option : method.options()) {
    if (option.name == name) return option.fallback;
  }
  TIDEPOOL_CHECK(false);
  return 0;
}

}  // namespace tidepool
