// Arithmetic on token scores that the policies share. Scores come from attention probabilities that the backend has
// computed; sources and shapes: arXiv 2404.14469 (SnapKV), arXiv 2306.14048 (H2O).
#ifndef TIDEPOOL_POLICIES_RETAIN_TOKEN_SCORES_H_
#define TIDEPOOL_POLICIES_RETAIN_TOKEN_SCORES_H_

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"

namespace tidepool {

// One-dimensional pooling, stride 1, same length, odd kernel. kAvg pads with zeros and always divides by the kernel
// size; kMax ignores padding.
std::vector<float> PoolScores(absl::Span<const float> scores, int kernel, Pooling pooling);

// Scores of the G query heads of a kv head, [G][size], to one of [size].
std::vector<float> ReduceGroup(absl::Span<const float> scores, int group, GroupReduce reduce);

// SnapKV: probabilities [group][window rows][keys] of the last queries; the mean over rows of the first `past` keys,
// reduced over the group, then pooled. Returns [past].
std::vector<float> WindowScores(absl::Span<const float> probabilities, int group, int window_rows, int keys, int past,
                                GroupReduce reduce, int kernel, Pooling pooling);

// The same from sums [keys] over all `queries` of the window, those of each query head, with reduce other than kMax.
std::vector<float> WindowScoresOfSums(absl::Span<const float> sums, int group, int queries, int past,
                                      GroupReduce reduce, int kernel, Pooling pooling);

// TOVA (arXiv 2401.06104): probabilities [query heads][keys] of the newest query of a layer; their mean over all query
// heads, one score for each row of the layer. The newest row is scored like the others. Returns [keys].
std::vector<float> LastRowScores(absl::Span<const float> probabilities, int query_heads);

// Orders indices by their score: descending, ties to the lower index, not-a-number last (so that a model that computes
// NaN cannot break a sort).
class BestFirst {
 public:
  explicit BestFirst(absl::Span<const float> scores) : scores_(scores) {}
  bool operator()(int32_t a, int32_t b) const {
    const float score_a = Rank(scores_[a]), score_b = Rank(scores_[b]);
    return score_a > score_b || (score_a == score_b && a < b);
  }
  static float Rank(float score) { return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score; }

 private:
  absl::Span<const float> scores_;
};

// Index of what TopIndices leaves out when it takes all but one. Not of none.
int32_t WorstIndex(absl::Span<const float> scores);
// Indices of the `count` largest, ascending; ties to the lower index. All of them when count >= size. O(size).
std::vector<int32_t> TopIndices(absl::Span<const float> scores, int count);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_TOKEN_SCORES_H_
