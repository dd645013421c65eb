// How the rows of a sequence are shared out over its layers (policies.md section 4).
#ifndef TIDEPOOL_POLICIES_RETAIN_LAYER_BUDGET_H_
#define TIDEPOOL_POLICIES_RETAIN_LAYER_BUDGET_H_

#include <vector>

#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"
#include "policies/retain/select.h"

namespace tidepool {

class ScoreMethod;

struct LayerBudget {
  bool dense = false;                  // never compressed
  bool lazy = false;                   // kLazy: keeps its first and last rows
  bool each_step = false;              // held at its budget while decoding, too
  const ScoreMethod* score = nullptr;  // spec.score, but for lazy layers: position. Null under preset full
  RowBudget rows;                      // of each kv head, on average
};

struct LayerBudgetInput {
  int layers = 0;
  int tokens = 0;     // seen so far
  int kept_rows = 0;  // per (layer, kv head), on average: what the device budget leaves to the policy
  // kVariance: F of each layer; kEqualMass, kBestRows: its share of all rows; else empty.
  absl::Span<const double> layer_weights;
  absl::Span<const int> lazy_layers;  // kLazy: what LazyLayers or the queue chose
};

// One for each layer. kVariance: the layers share kept_rows by VarianceRatios, or each has kept_rows when the tokens
// fit. kPyramid, kAdaPyramid: by PyramidPastRows; in the first layers that may be all rows there are. kLazy: the lazy
// layers have spec.lazy_sinks and spec.lazy_recent rows, the others are dense. When that is more than kept_rows on
// average, both give: lazy layers have at most half the average, the others share the rest and choose by spec.score, as
// in the paper's combination with SnapKV. kEqualMass, kBestRows: by the layers' shares.
std::vector<LayerBudget> LayerBudgets(const CompressionSpec& spec, const LayerBudgetInput& input);

// D2O (arXiv 2406.13035, official code): how unevenly the variances of the heads' column sums are spread. column_sums:
// one array [tokens] for each query head of the layer. F = mean over heads of (x - min) / (max - min + 1e-6), x the
// unbiased variance.
double VarianceConcentration(absl::Span<const absl::Span<const float>> column_sums);

// ratio_l = clamp(softmax(-F)_l * layers * rho, 0.01, 1).
std::vector<double> VarianceRatios(absl::Span<const double> concentration, double rho);

// Layers that are never compressed: spec.dense_layers, and for kVariance 0, 1 and the last unless overridden.
bool IsDenseLayer(const CompressionSpec& spec, int layer, int layers);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_LAYER_BUDGET_H_
