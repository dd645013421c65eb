// Every preset that there is: the published policies of docs/policies.md as choices of the stages.
#ifndef TIDEPOOL_POLICIES_RETAIN_PRESET_TABLE_H_
#define TIDEPOOL_POLICIES_RETAIN_PRESET_TABLE_H_

#include <string_view>

#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"

namespace tidepool {

class ScoreMethod;

struct Preset {
  std::string_view name;
  std::string_view summary;  // one line
  CompressionSpec (*make)();
  const ScoreMethod* score = nullptr;  // that this preset brings; others may use it
};

// In the order of ListPolicies.
absl::Span<const Preset> AllPresets();
// nullptr when there is none.
const Preset* FindPreset(std::string_view name);

// A spec whose stages are these, all else as by default.
struct Stages {
  LayerBudgetRule layer_budget = LayerBudgetRule::kUniform;
  HeadBudgetRule head_budget = HeadBudgetRule::kUniform;
  const char* score = "";
  Schedule schedule = Schedule::kPrefill;
  Fate fate = Fate::kDrop;
};
CompressionSpec SpecOf(const char* preset, const Stages& stages);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_PRESET_TABLE_H_
