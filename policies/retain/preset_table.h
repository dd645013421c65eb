// Every preset that there is: the published policies of docs/policies.md as choices of the four stages.
#ifndef TIDEPOOL_POLICIES_RETAIN_PRESET_TABLE_H_
#define TIDEPOOL_POLICIES_RETAIN_PRESET_TABLE_H_

#include <string_view>

#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"

namespace tidepool {

struct Preset {
  std::string_view name;
  std::string_view summary;  // one line
  CompressionSpec (*make)();
};

// In the order of ListPolicies.
absl::Span<const Preset> AllPresets();
// nullptr when there is none.
const Preset* FindPreset(std::string_view name);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_PRESET_TABLE_H_
