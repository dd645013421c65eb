#include "policies/recall/cosine_probe.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tidepool {
namespace {

constexpr float kLeastLength = 1e-12f;

double Dot(const float* a, const float* b, int head_dim) {
  double dot = 0;
  for (int c = 0; c < head_dim; ++c) dot += double{a[c]} * b[c];
  return dot;
}

std::vector<float> Lengths(absl::Span<const float> rows, int head_dim) {
  std::vector<float> lengths;
  for (size_t i = 0; i < rows.size(); i += head_dim) {
    lengths.push_back(static_cast<float>(std::sqrt(Dot(rows.data() + i, rows.data() + i, head_dim))));
  }
  return lengths;
}

std::vector<float> BestCosines(absl::Span<const float> probes, absl::Span<const float> keys, int head_dim) {
  std::vector<float> dots, best(keys.size() / head_dim);
  for (size_t p = 0; p < probes.size(); p += head_dim) {
    for (size_t k = 0; k < keys.size(); k += head_dim) {
      dots.push_back(static_cast<float>(Dot(probes.data() + p, keys.data() + k, head_dim)));
    }
  }
  tidepool::BestCosines(dots, best.size(), Lengths(probes, head_dim), Lengths(keys, head_dim), absl::MakeSpan(best));
  return best;
}

}  // namespace

void BestCosines(absl::Span<const float> dots, size_t stride, absl::Span<const float> probe_lengths,
                 absl::Span<const float> key_lengths, absl::Span<float> best) {
  std::fill(best.begin(), best.end(), -1.0f);
  for (size_t p = 0; p < probe_lengths.size(); ++p) {
    const float length = std::max(probe_lengths[p], kLeastLength);
    const float* dot = dots.data() + p * stride;
    for (size_t k = 0; k < best.size(); ++k) {
      best[k] = std::max(best[k], dot[k] / (length * std::max(key_lengths[k], kLeastLength)));
    }
  }
}

CosineProbeResult ProbeByCosine(absl::Span<const float> probes, absl::Span<const float> retained,
                                absl::Span<const float> offloaded, int head_dim, double beta,
                                std::optional<double>& theta) {
  TIDEPOOL_CHECK(head_dim >= 1 && !probes.empty() && !retained.empty() && probes.size() % head_dim == 0 &&
                 retained.size() % head_dim == 0 && offloaded.size() % head_dim == 0);
  const std::vector<float> kept = BestCosines(probes, retained, head_dim);
  const double best = *std::max_element(kept.begin(), kept.end());
  theta = theta ? beta * best + (1 - beta) * *theta : best;
  CosineProbeResult result;
  result.similarity = BestCosines(probes, offloaded, head_dim);
  for (const float similarity : result.similarity) result.recall.push_back(similarity >= *theta);
  return result;
}

}  // namespace tidepool
