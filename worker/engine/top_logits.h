// The best tokens of a logits row. One order everywhere: higher logit first, ties to the lower id. NaN and -inf never
// count.
#ifndef TIDEPOOL_WORKER_ENGINE_TOP_LOGITS_H_
#define TIDEPOOL_WORKER_ENGINE_TOP_LOGITS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/backend/token_logit.h"

namespace tidepool {

inline bool Better(const TokenLogit& a, const TokenLogit& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// The best token, or -1 when every logit is NaN or -inf. One pass.
int32_t ArgMax(absl::Span<const float> logits);

// The best `count` (>= 0) tokens in order; fewer when fewer count. `out` is replaced; it grows to at most 2 * count +
// 256.
void TopLogits(absl::Span<const float> logits, int count, std::vector<TokenLogit>& out);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_TOP_LOGITS_H_
