// Similarity test for recall (policies.md section 8): D2O's question at eviction, "does it resemble something kept?",
// asked again by the decoding queries. Attention ranks by q.k, not by cosines, so recall goes by scores unless a
// request asks for this (RecallTrigger::kCosine).
#ifndef TIDEPOOL_POLICIES_RECALL_COSINE_PROBE_H_
#define TIDEPOOL_POLICIES_RECALL_COSINE_PROBE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// The largest cosine of each key to a probe, from their products: dots[p * stride + k] of probe p and key k, and the
// lengths of both. One key for each of `best`.
void BestCosines(absl::Span<const float> dots, size_t stride, absl::Span<const float> probe_lengths,
                 absl::Span<const float> key_lengths, absl::Span<float> best);

struct CosineProbeResult {
  std::vector<float> similarity;  // of each offloaded key: the largest cosine to a probe
  std::vector<uint8_t> recall;    // similarity >= the new theta
};

// probes: the queries of one kv head's group, or its newest key; all arrays are [rows][head_dim] with rows >= 1.
// theta: the best cosine between a probe and a retained key at first, then beta * best + (1 - beta) * theta.
CosineProbeResult ProbeByCosine(absl::Span<const float> probes, absl::Span<const float> retained,
                                absl::Span<const float> offloaded, int head_dim, double beta,
                                std::optional<double>& theta);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RECALL_COSINE_PROBE_H_
