#include "policies/recall/cosine_probe.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tidepool {
namespace {

double Cosine(const float* a, const float* b, int head_dim) {
  double dot = 0, squares_a = 0, squares_b = 0;
  for (int c = 0; c < head_dim; ++c) {
    dot += double{a[c]} * b[c];
    squares_a += double{a[c]} * a[c];
    squares_b += double{b[c]} * b[c];
  }
  return dot / (std::max(std::sqrt(squares_a), 1e-12) * std::max(std::sqrt(squares_b), 1e-12));
}

// The largest cosine of each key to a probe.
std::vector<double> BestCosines(absl::Span<const float> probes, absl::Span<const float> keys, int head_dim) {
  std::vector<double> best(keys.size() / head_dim, -1.0);
  for (size_t i = 0; i < best.size(); ++i) {
    for (size_t p = 0; p < probes.size(); p += head_dim) {
      best[i] = std::max(best[i], Cosine(probes.data() + p, keys.data() + i * head_dim, head_dim));
    }
  }
  return best;
}

}  // namespace

CosineProbeResult ProbeByCosine(absl::Span<const float> probes, absl::Span<const float> retained,
                                absl::Span<const float> offloaded, int head_dim, double beta,
                                std::optional<double>& theta) {
  TIDEPOOL_CHECK(head_dim >= 1 && !probes.empty() && !retained.empty() && probes.size() % head_dim == 0 &&
                 retained.size() % head_dim == 0 && offloaded.size() % head_dim == 0);
  const std::vector<double> kept = BestCosines(probes, retained, head_dim);
  const double best = *std::max_element(kept.begin(), kept.end());
  theta = theta ? beta * best + (1 - beta) * *theta : best;
  CosineProbeResult result;
  for (double similarity : BestCosines(probes, offloaded, head_dim)) {
    result.similarity.push_back(static_cast<float>(similarity));
    result.recall.push_back(similarity >= *theta);
  }
  return result;
}

}  // namespace tidepool
