#include "worker/kv/joint_choice.h"

#include <algorithm>
#include <cstdint>

namespace tidepool {

std::vector<Chooser> ChoosersOf(const RecallSpec& spec, int layers) {
  if (spec.select_scope == SelectScope::kLayer) return std::vector<Chooser>(layers, Chooser::kHeadsTogether);
  std::vector<Chooser> choosers(layers, Chooser::kHead);
  if (spec.select_scope == SelectScope::kHead) return choosers;
  const std::vector<int> filters = FilterLayers(spec, layers);
  std::fill(choosers.begin() + filters.front(), choosers.end(), Chooser::kLayerBelow);
  for (int layer : filters) choosers[layer] = Chooser::kHeadsTogether;
  return choosers;
}

void JointShares::Clear() {
  shares_.clear();
  heads_ = 0;
}

void JointShares::Add(const RowScores& scores) {
  shares_.resize(scores.positions, 0.0f);
  for (int32_t i = 0; i < scores.positions; ++i) {
    if (scores.state[i] != RecallState::kOut) shares_[i] += scores.mass * scores.weight[i];
  }
  ++heads_;
}

absl::Span<const float> JointShares::Mean() {
  if (heads_ > 1) {
    for (float& share : shares_) share /= static_cast<float>(heads_);
    heads_ = 1;
  }
  return shares_;
}

}  // namespace tidepool
