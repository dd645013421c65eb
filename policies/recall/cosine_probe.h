// Similarity test for recall (policies.md section 8): D2O's question at eviction, "does it resemble something kept?",
// asked again by the decoding queries. Attention ranks by q.k, not by cosines, so the index of k4_code.h decides what
// is recalled; this one is kept to be compared with it.
#ifndef TIDEPOOL_POLICIES_RECALL_COSINE_PROBE_H_
#define TIDEPOOL_POLICIES_RECALL_COSINE_PROBE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

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
