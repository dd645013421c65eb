// Log-probabilities of a logits row: natural log of the softmax over the whole vocabulary, before any penalty.
#ifndef TIDEPOOL_WORKER_ENGINE_LOGPROBS_H_
#define TIDEPOOL_WORKER_ENGINE_LOGPROBS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace tidepool {

struct TokenLogprob;  // worker/engine/engine.h

// log(sum(exp(logits))), summed in double in the order of the ids. NaN counts as -inf, +inf as the largest float; -inf
// when nothing is left.
double LogSumExp(absl::Span<const float> logits);

// logits: [vocabulary]. token: 0 <= token < vocabulary. `top` holds the best `alternatives` (>= 0) tokens of the
// vocabulary in descending order, ties by id, `token` among them where it belongs. Log-probabilities are never NaN and
// never above 0.
TokenLogprob LogprobOf(absl::Span<const float> logits, int32_t token, int alternatives);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_LOGPROBS_H_
