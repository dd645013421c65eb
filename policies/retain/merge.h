// D2O's discrimination and merging (arXiv 2406.13035; policies.md section 6.4): of the rows that one compression of a
// layer evicts, those that resemble a kept one are merged into it, the others are dropped (or recalled later).
#ifndef TIDEPOOL_POLICIES_RETAIN_MERGE_H_
#define TIDEPOOL_POLICIES_RETAIN_MERGE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// kOfficial: the published code. One threshold for the layer, a slot of evicted rows is merged in all heads or in none,
// and the divisor counts sources without their weights. kPaper: the paper's formulas, each head for itself.
enum class MergeMode { kOfficial, kPaper };

struct MergeOptions {
  MergeMode mode = MergeMode::kOfficial;
  double alpha = 0.5, beta = 0.5;      // official: tau' = alpha * tau + beta * mean similarity
  double paper_beta = 0.7;             // paper: tau' = beta * max similarity + (1 - beta) * tau
  double merge_e = 2.718281828459045;  // paper: weight of the target
};

// Threshold of one layer, for the life of a sequence: one value, or one for each head in paper mode. Empty until the
// first time.
struct MergeState {
  std::vector<double> tau;
};

// Rows of one head, float32, [rows][head_dim]. Kept rows are changed in place.
struct MergeHead {
  float* kept_keys = nullptr;
  float* kept_values = nullptr;
  int kept = 0;
  const float* evicted_keys = nullptr;
  const float* evicted_values = nullptr;
};

struct MergeResult {
  // [heads][evicted]
  std::vector<std::vector<float>> similarity;  // cosine to the most similar kept row
  std::vector<std::vector<int32_t>> target;    // that row
  std::vector<std::vector<uint8_t>> merged;
};

// Rows [count][head_dim] scaled to length 1. The second: in blocks of `block`, [ceil(count / block)][head_dim][block],
// with zeros behind the last row. A cosine is the product of two of them, summed in the order of the channels.
std::vector<float> UnitRows(const float* rows, int count, int head_dim);
std::vector<float> UnitRowBlocks(const float* rows, int count, int head_dim, int block);

// The reference: a worker finds targets by FindNearestRows or on the device, and calls MergeFound.
// Every head evicts the same number of rows, in ascending position; `evicted` >= 1, kept >= 1.
MergeResult MergeEvicted(absl::Span<const MergeHead> heads, int evicted, int head_dim, const MergeOptions& options,
                         MergeState& state);

// The same where similarities and targets (of [heads][evicted], with similarity and target filled in) are known:
// decides which are merged, and merges them.
void MergeFound(absl::Span<const MergeHead> heads, int evicted, int head_dim, const MergeOptions& options,
                MergeState& state, MergeResult& result);

// Only which are merged.
void DecideMerges(int evicted, const MergeOptions& options, MergeState& state, MergeResult& result);

// The same of one evicted row of each head with these similarities, by kOfficial: merged, in all heads or in none.
bool DecideMerge(absl::Span<const float> similarity, const MergeOptions& options, MergeState& state);

// What becomes of a kept row: (own * row + sum of weight * source) / divisor.
struct Mixture {
  struct Source {
    int32_t evicted;
    double weight;
  };
  int32_t target = 0;
  double own = 0, divisor = 0;
  std::vector<Source> sources;
};
// Of a kept row and one evicted row, by kOfficial.
struct PairMixture {
  double own = 1, weight = 0, divisor = 2;
};
PairMixture MixtureOf(float similarity);
// Of one head, by ascending target; what goes into one in the order of the evicted rows.
std::vector<Mixture> MixturesOf(const MergeOptions& options, absl::Span<const float> similarity,
                                absl::Span<const int32_t> target, absl::Span<const uint8_t> merged);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_MERGE_H_
