#include "worker/engine/logprobs.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "base/check.h"
#include "worker/engine/engine.h"
#include "worker/engine/portable_exp.h"
#include "worker/engine/top_logits.h"

namespace tidepool {
namespace {

constexpr float kLargestFloat = std::numeric_limits<float>::max();
constexpr float kNone = -std::numeric_limits<float>::infinity();

float Finite(float logit) { return logit > kLargestFloat ? kLargestFloat : logit; }

float Logprob(float logit, double log_sum) {
  if (!(logit > kNone)) return kNone;
  return static_cast<float>(std::min(0.0, Finite(logit) - log_sum));
}

}  // namespace

double LogSumExp(absl::Span<const float> logits) {
  const int32_t best = ArgMax(logits);
  if (best < 0) return kNone;
  const double largest = Finite(logits[best]);
  // Exponentials in runs, apart from the sum, so that they vectorise while the sum keeps its order.
  constexpr size_t kRun = 256;
  double weights[kRun];
  double sum = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kRun) {
    const size_t count = std::min(kRun, logits.size() - begin);
    for (size_t i = 0; i < count; ++i) weights[i] = PortableExp(Finite(logits[begin + i]) - largest);
    for (size_t i = 0; i < count; ++i) sum += weights[i];
  }
  return largest + std::log(sum);
}

TokenLogprob LogprobOf(absl::Span<const float> logits, int32_t token, int alternatives) {
  TIDEPOOL_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
  const double log_sum = LogSumExp(logits);
  TokenLogprob result;
  result.token = token;
  result.logprob = Logprob(logits[token], log_sum);
  std::vector<TokenLogit> best;
  TopLogits(logits, alternatives, best);
  result.top.reserve(best.size());
  for (const TokenLogit& other : best) result.top.emplace_back(other.token, Logprob(other.logit, log_sum));
  return result;
}

}  // namespace tidepool
