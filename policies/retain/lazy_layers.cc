#include "policies/retain/lazy_layers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace tidepool {
namespace {

bool Contains(const std::vector<int>& layers, int layer) {
  return std::find(layers.begin(), layers.end(), layer) != layers.end();
}

}  // namespace

double LazyRatio(absl::Span<const float> probabilities, int keys, int sinks, int recent) {
  TIDEPOOL_CHECK(keys >= 1 && sinks >= 0 && recent >= 0 && !probabilities.empty() && probabilities.size() % keys == 0);
  const int first = std::min(sinks, keys), last = std::max(first, keys - recent);
  if (first == last) return 1;
  double mass = 0;
  for (size_t row = 0; row < probabilities.size(); row += keys) {
    for (int i = 0; i < first; ++i) mass += probabilities[row + i];
    for (int i = last; i < keys; ++i) mass += probabilities[row + i];
  }
  return mass / (static_cast<double>(probabilities.size()) / keys);
}

double LazyRatioFromLogSumExp(absl::Span<const float> set_logits, absl::Span<const float> log_sum_exp) {
  TIDEPOOL_CHECK(!log_sum_exp.empty() && set_logits.size() % log_sum_exp.size() == 0);
  const size_t set = set_logits.size() / log_sum_exp.size();
  double mass = 0;
  for (size_t row = 0; row < log_sum_exp.size(); ++row) {
    for (size_t i = 0; i < set; ++i) mass += std::exp(double{set_logits[row * set + i]} - log_sum_exp[row]);
  }
  return mass / static_cast<double>(log_sum_exp.size());
}

LazyLayerQueue::LazyLayerQueue(int full_layers) : full_layers_(full_layers) { TIDEPOOL_CHECK(full_layers >= 0); }

std::optional<int> LazyLayerQueue::Push(int layer, double ratio) {
  whole_.emplace_back(std::isnan(ratio) ? -std::numeric_limits<double>::infinity() : ratio, layer);
  if (whole() <= full_layers_) return std::nullopt;
  const auto laziest = std::max_element(whole_.begin(), whole_.end(), [](const auto& a, const auto& b) {
    return a.first < b.first || (a.first == b.first && a.second > b.second);
  });
  const int cut = laziest->second;
  whole_.erase(laziest);
  return cut;
}

int FullLayers(const CompressionSpec& spec, int layers) {
  // The small term undoes the rounding of the product where it is a whole number.
  return static_cast<int>(layers * (1 - spec.lazy_share) + 1e-9);
}

std::vector<int> LazyLayers(const CompressionSpec& spec, absl::Span<const double> ratios) {
  const int layers = static_cast<int>(ratios.size());
  int dense = 0;
  for (int layer = 0; layer < layers; ++layer) dense += Contains(spec.dense_layers, layer);
  LazyLayerQueue queue(std::max(0, FullLayers(spec, layers) - dense));
  std::vector<int> lazy;
  for (int layer = 0; layer < layers; ++layer) {
    if (Contains(spec.dense_layers, layer)) continue;
    if (!spec.lazy_layers.empty()) {
      if (Contains(spec.lazy_layers, layer)) lazy.push_back(layer);
    } else if (spec.lazy_threshold > 0) {
      if (ratios[layer] > spec.lazy_threshold) lazy.push_back(layer);  // false for NaN
    } else if (const std::optional<int> cut = queue.Push(layer, ratios[layer]); cut.has_value()) {
      lazy.push_back(*cut);
    }
  }
  std::sort(lazy.begin(), lazy.end());
  return lazy;
}

}  // namespace tidepool
