// Keyformer's scores (MLSys 2024, arXiv 2403.09054; official code): sums of attention rows like H2O's, but each row is
// a softmax of the logits plus Gumbel noise, at a temperature that rises while tokens are generated. Evicted tokens
// leave their share of the softmax to those that stay; noise and temperature keep that from settling on a few of them.
//
// The noise of a (query, key) pair is a function of its position in the model and of a seed, not of how many numbers
// were drawn before: the same request gives the same rows, whatever the order of the heads or the chunks of its prompt.
#ifndef TIDEPOOL_POLICIES_RETAIN_KEYFORMER_SCORES_H_
#define TIDEPOOL_POLICIES_RETAIN_KEYFORMER_SCORES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

struct KeyformerNoise {
  uint64_t seed = 0;
  int layer = 0;
  int query_head = 0;
};

// Standard Gumbel noise, -ln(-ln u) with u uniform in (0, 1), of the query at `query_position` and the key at
// `key_position`.
double GumbelNoise(const KeyformerNoise& noise, int64_t query_position, int64_t key_position);

// 1 for the prompt (step 0), and 0.01 more for each generated token, as in the official code.
double KeyformerTemperature(int64_t step);

// softmax((logits + noise) / temperature) of one query over the keys at `positions`; logits are q.k / sqrt(head_dim).
// To be summed over queries. [keys]
std::vector<float> KeyformerRow(absl::Span<const float> logits, absl::Span<const int32_t> positions,
                                const KeyformerNoise& noise, int64_t query_position, double temperature);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_KEYFORMER_SCORES_H_
