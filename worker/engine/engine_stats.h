// What an engine has counted since its start, as a plain value that is copied after each step.
#ifndef TIDEPOOL_WORKER_ENGINE_ENGINE_STATS_H_
#define TIDEPOOL_WORKER_ENGINE_ENGINE_STATS_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "cacheservice/api/block_cache.h"
#include "worker/kv/recall_meter.h"

namespace tidepool {

enum class FinishReason { kStop, kLength, kCancelled, kDeadline };
inline constexpr int kFinishReasons = 4;
inline const char* NameOf(FinishReason reason) {
  static constexpr const char* kNames[kFinishReasons] = {"stop", "length", "cancelled", "deadline"};
  return kNames[static_cast<int>(reason)];
}

inline constexpr double kTokenSecondsBounds[] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5};
inline constexpr double kRequestSecondsBounds[] = {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,
                                                   2,     5,    10,   20,   60,  120, 300, 1200};

// Where the time of requests goes. Each request is in them once, when it gets that far; between_tokens has each pair of
// neighbouring tokens.
struct RequestTimes {
  Histogram queue{kRequestSecondsBounds};        // from arrival to the first step
  Histogram first_token{kRequestSecondsBounds};  // from arrival
  Histogram prefill{kRequestSecondsBounds};      // from the first step to the first token
  Histogram between_tokens{kTokenSecondsBounds};
  Histogram decode{kRequestSecondsBounds};  // from the first token to the last
  Histogram total{kRequestSecondsBounds};   // from arrival to the end, of all that ended
};

// Of all requests with one preset; a named policy counts as the one it starts from.
struct PolicyStats {
  std::string policy;
  int64_t evicted_rows = 0, merged_rows = 0;  // of requests that have ended
  RecallMeter recall;
};

struct EngineStats {
  int64_t running_sequences = 0, waiting_requests = 0;
  int64_t waiting_tokens = 0;       // of prompts, not computed yet
  double prompt_token_seconds = 0;  // as StepPace
  int64_t total_pages = 0, used_pages = 0;
  int64_t page_bytes = 0;
  int64_t requests_failed = 0;
  std::array<int64_t, kFinishReasons> ended = {};  // by FinishReason, those without an error
  int64_t requests_rejected = 0;                   // the queue was full
  int64_t requests_degraded = 0;                   // answered without rows that were lost
  int64_t requests_over_budget = 0;                // of GenerationUsage::budget_exceeded
  int64_t prompt_tokens = 0, generated_tokens = 0;
  int64_t looked_up_tokens = 0;  // of prompts for which stored keys and values were looked for
  // Not computed again: the session was resident, it was restored, a stored prefix was adopted.
  int64_t resident_tokens = 0, restored_tokens = 0, prefix_tokens = 0;
  int64_t refused_prefix_tokens = 0;  // stored, and computed all the same: loading them would have taken longer
  int64_t evicted_rows = 0, merged_rows = 0, recalled_rows = 0, late_rows = 0, lost_rows = 0;
  int64_t steps = 0;
  RequestTimes times;
  RecallRequests recalls;
  std::vector<PolicyStats> policies;  // in the order of their first requests
  BlockCacheStats cache;

  int64_t count(FinishReason reason) const { return ended[static_cast<size_t>(reason)]; }
  int64_t requests_finished() const { return count(FinishReason::kStop) + count(FinishReason::kLength); }
  int64_t requests_cancelled() const { return count(FinishReason::kCancelled) + count(FinishReason::kDeadline); }
  int64_t cached_prompt_tokens() const { return resident_tokens + restored_tokens + prefix_tokens; }
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_ENGINE_STATS_H_
