// LightTransfer (arXiv 2410.13846v2) and its first version SimLayerKV (v1): lazy layers keep their first and last rows,
// the others everything, or, where the budget binds, what SnapKV's score chooses (the paper's combination with it).
#include "policies/retain/presets/presets.h"

namespace tidepool {

Preset LightTransferPreset() {
  return {
      "lighttransfer",
      "LightTransfer: the layers that look mostly at the first and last tokens keep only those (arXiv 2410.13846v2)",
      [] {
        CompressionSpec spec =
            SpecOf("lighttransfer",
                   {.layer_budget = LayerBudgetRule::kLazy, .score = "window", .schedule = Schedule::kPrefillAndStep});
        spec.budget_fraction = 1;  // the method's own budget is lazy_share
        return spec;
      }};
}

Preset SimLayerKvPreset() {
  return {"simlayerkv", "SimLayerKV: LightTransfer's first version, with a threshold (arXiv 2410.13846v1)", [] {
            CompressionSpec spec =
                SpecOf("simlayerkv",
                       {.layer_budget = LayerBudgetRule::kLazy, .score = "window", .schedule = Schedule::kFirstStep});
            spec.budget_fraction = 1;
            spec.lazy_recent = 1024;
            spec.lazy_last = 1;         // the first new token's query
            spec.lazy_threshold = 0.9;  // for Llama-3; 0.65 for Llama-2, 0.8 for Mistral, 0.85 for Qwen
            return spec;
          }};
}

}  // namespace tidepool
