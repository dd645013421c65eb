#include "worker/engine/top_logits.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include "base/check.h"

namespace tidepool {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// Eight running maxima side by side, so that the compiler can use vector registers. NaN never replaces a maximum.
float Largest(const float* values, size_t count) {
  constexpr size_t kLanes = 8;
  std::array<float, kLanes> lanes;
  lanes.fill(kNone);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) lanes[l] = values[i + l] > lanes[l] ? values[i + l] : lanes[l];
  }
  for (; i < count; ++i) lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
  return *std::max_element(lanes.begin(), lanes.end());
}

void KeepBest(std::vector<TokenLogit>& tokens, size_t count) {
  if (tokens.size() <= count) return;
  std::nth_element(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(count) - 1, tokens.end(), Better);
  tokens.resize(count);
}

}  // namespace

int32_t ArgMax(absl::Span<const float> logits) {
  constexpr size_t kRun = 512;  // 2 KiB: the run that wins is still in the first cache when it is searched
  float best = kNone;
  size_t best_run = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kRun) {
    const float largest = Largest(logits.data() + begin, std::min(kRun, logits.size() - begin));
    if (largest > best) {
      best = largest;
      best_run = begin;
    }
  }
  if (best == kNone) return -1;
  const auto run = logits.subspan(best_run, kRun);
  return static_cast<int32_t>(best_run + (std::find(run.begin(), run.end(), best) - run.begin()));
}

void TopLogits(absl::Span<const float> logits, int count, std::vector<TokenLogit>& out) {
  TIDEPOOL_CHECK(count >= 0);
  out.clear();
  if (count == 0) return;
  const size_t keep = static_cast<size_t>(std::min<int64_t>(count, static_cast<int64_t>(logits.size())));
  const size_t capacity = 2 * keep + 256;
  out.reserve(capacity);
  // Collect what beats the worst of the best so far; cut back when the buffer is full. A later token that only equals
  // the threshold has the higher id and loses the tie.
  float threshold = kNone;
  for (size_t token = 0; token < logits.size(); ++token) {
    if (!(logits[token] > threshold)) continue;
    out.push_back({logits[token], static_cast<int32_t>(token)});
    if (out.size() < capacity) continue;
    KeepBest(out, keep);
    threshold = out.back().logit;
  }
  KeepBest(out, keep);
  std::sort(out.begin(), out.end(), Better);
}

}  // namespace tidepool
