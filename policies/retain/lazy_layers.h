// Layers that look mostly at the first and the last tokens are lazy: they keep only those, the other layers everything.
// LightTransfer (arXiv 2410.13846v2; policies.md section 4.5) cuts the laziest ones; its first version, SimLayerKV
// (arXiv 2410.13846v1), those above a threshold. The paper cuts while the prompt passes through the layers, so that at
// no time more than `full_layers` + 1 of them are whole; the engine runs prompts in chunks through all layers, so all
// of them are whole until the decision at the end of the prompt (or of a chunk: spec.prefill).
#ifndef TIDEPOOL_POLICIES_RETAIN_LAZY_LAYERS_H_
#define TIDEPOOL_POLICIES_RETAIN_LAZY_LAYERS_H_

#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"

namespace tidepool {

// Mean over rows of the attention on the first `sinks` and the last `recent` keys. probabilities: [rows][keys], one row
// for each query head and each of the last queries. >= 1 row. Exactly 1 when the two parts cover all keys, whatever the
// probabilities round to: such layers are equals, of which the queue cuts the lowest.
double LazyRatio(absl::Span<const float> probabilities, int keys, int sinks, int recent);

// The same from what a flash attention kernel leaves behind: log_sum_exp [rows] of each row over all its keys, and its
// logits [rows][set] over the first and last keys only (minus infinity where a key is later than the query).
double LazyRatioFromLogSumExp(absl::Span<const float> set_logits, absl::Span<const float> log_sum_exp);

// Layers in the order in which their ratios become known; at most `full_layers` of them stay whole.
class LazyLayerQueue {
 public:
  explicit LazyLayerQueue(int full_layers);

  // The layer to cut now, if any: the laziest of those still whole, of equals the lowest. A ratio that is not a number
  // counts as the least lazy. O(full layers).
  std::optional<int> Push(int layer, double ratio);

  int whole() const { return static_cast<int>(whole_.size()); }

 private:
  const int full_layers_;
  std::vector<std::pair<double, int>> whole_;  // ratio, layer
};

// Layers that stay whole under spec.lazy_share, dense_layers included: floor(layers * (1 - share)), half of them by
// default.
int FullLayers(const CompressionSpec& spec, int layers);

// The lazy layers, ascending, of a model of ratios.size() layers: spec.lazy_layers when given (then the ratios do not
// matter), else those above spec.lazy_threshold when it is set, else what LazyLayerQueue cuts. Never one of
// spec.dense_layers: those are whole in any case, and the share of the others shrinks accordingly.
std::vector<int> LazyLayers(const CompressionSpec& spec, absl::Span<const double> ratios);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_LAZY_LAYERS_H_
