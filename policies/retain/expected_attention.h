// Expected Attention (arXiv 2510.00636; NVIDIA/kvpress): scores without attention rows. Queries before RoPE are taken
// to be Gaussian; turned to the positions that come next, their mean and covariance give the attention that a key can
// expect: for q ~ N(mu, S), E exp(q.k / sqrt(d)) = exp(mu.k / sqrt(d) + k.S.k / (2 d)).
#ifndef TIDEPOOL_POLICIES_RETAIN_EXPECTED_ATTENTION_H_
#define TIDEPOOL_POLICIES_RETAIN_EXPECTED_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/kv/rope.h"

namespace tidepool {

// Of the queries of one query head.
struct QueryDistribution {
  std::vector<double> mean;        // [head_dim]
  std::vector<double> covariance;  // [head_dim][head_dim]
};

// Mean and covariance of queries before RoPE, one after another. O(head_dim^2) memory and each.
class QueryMoments {
 public:
  explicit QueryMoments(int head_dim);
  void Add(absl::Span<const float> query);  // [head_dim]
  int64_t count() const { return count_; }
  // The covariance is divided by their number. Zeros when there are none.
  QueryDistribution Distribution() const;

 private:
  int64_t count_ = 0;
  std::vector<double> sum_;       // [head_dim]
  std::vector<double> products_;  // [head_dim][head_dim], its lower triangle
};

// query [head_dim] after RoPE at `position` becomes what it was before.
void Unrotate(const Rope& rope, int32_t position, absl::Span<float> query);

// queries [n][head_dim] before RoPE, n >= 1. The covariance is divided by n. kvpress leaves out the first 4 queries,
// which are outliers: so should the caller.
QueryDistribution DistributionOfQueries(absl::Span<const float> queries, int head_dim);

// Which channels RoPE turns together: 2 i and 2 i + 1, or (neox) i and pairs + i. Channels from 2 * pairs on stay.
struct AverageRotation {
  std::vector<double> cosine, sine;  // [pairs], means over the positions
  bool neox = false;
};

// frequencies: the angle of each pair for one position. Over `positions` (>= 1; kvpress: 512) positions from `first`
// on.
AverageRotation RotationAhead(absl::Span<const float> frequencies, int64_t first, int positions, bool neox);

// mean <- R mean, covariance <- R covariance R^T.
void Rotate(const AverageRotation& rotation, QueryDistribution& queries);

// Scores of the keys [rows][head_dim] (after RoPE) of one kv head: softmax over the rows of the expected attention,
// mean over the query heads of its group, times value_norms [rows], the lengths |v|. The first tokens are best left out
// (they take most of any softmax) and kept in any case. O(group * rows * head_dim^2).
std::vector<float> ExpectedAttention(absl::Span<const QueryDistribution> group, absl::Span<const float> keys,
                                     absl::Span<const float> value_norms);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_EXPECTED_ATTENTION_H_
