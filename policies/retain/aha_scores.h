// AhaKV's scores (arXiv 2506.03762; no code was published, policies.md sections 3.4 and 6.5): attention of the last
// tokens under a softmax that sharpens as the sequence grows, times how large the values are.
//
// The ordinary softmax flattens with length, so that sums of its rows favour old tokens for having been seen more
// often. For unit Gaussian queries and keys the expected entropy of a row over i tokens is ln i - lambda^2 head_dim /
// 2; the lambda that makes it ln B, B the rows kept, spreads each row over about as many tokens as will stay. Only the
// scores use it: the layer's output keeps the ordinary softmax.
#ifndef TIDEPOOL_POLICIES_RETAIN_AHA_SCORES_H_
#define TIDEPOOL_POLICIES_RETAIN_AHA_SCORES_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// lambda = sqrt(2 ln(tokens / budget) / head_dim), which takes the place of 1 / sqrt(head_dim); 0 while tokens <=
// budget. tokens: all that were seen, evicted ones included.
double AhaLambda(int64_t tokens, int64_t budget, int head_dim);

// What a query is multiplied by so that the ordinary softmax(q.k / sqrt(head_dim)) becomes AhaKV's: lambda *
// sqrt(head_dim).
double AhaQueryScale(int64_t tokens, int64_t budget);

// |V_j|^2 of values [rows][head_dim].
std::vector<double> SquaredNorms(absl::Span<const float> values, int head_dim);

// The resident rows of one storage head, in ascending position.
class AhaScores {
 public:
  // recent: rows of attention that a score sums; value_kernel: odd, 1 for no pooling.
  AhaScores(int recent, int value_kernel);

  // The prompt is in. attention: [rows][tokens] of its last queries in order, at most `recent`, under AhaKV's softmax
  // and reduced over the group; value_norms [tokens]: SquaredNorms. The prior is those norms, pooled by average, over
  // their maximum: between 0 and 1.
  void SetPrompt(absl::Span<const float> attention, absl::Span<const double> value_norms);

  // A decoding step: a new row joins, whose prior is its own norm over the largest seen, and the newest query's
  // attention to all rows, the new one included, takes the place of the oldest. attention: [rows() + 1].
  void Append(double value_norm, absl::Span<const float> attention);

  // Only these rows stay (ascending).
  void Keep(absl::Span<const int32_t> kept);

  // prior * sum of the last attention rows. O(recent * rows).
  std::vector<float> Scores() const;

  int rows() const { return static_cast<int>(prior_.size()); }

 private:
  const size_t recent_;
  const int value_kernel_;
  double largest_norm_ = 0;
  std::vector<double> prior_;                 // [rows]
  std::deque<std::vector<float>> attention_;  // at most recent_, oldest first; each [rows]
};

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_AHA_SCORES_H_
