#include "worker/engine/engine_meter.h"

#include <algorithm>
#include <vector>

#include "absl/time/clock.h"
#include "base/check.h"

namespace tidepool {

void EngineMeter::Admitted(Generation& generation, Source source, bool looked_up) {
  const GenerationUsage& usage = generation.usage;
  stats_->prompt_tokens += usage.prompt_tokens;
  if (looked_up) stats_->looked_up_tokens += usage.prompt_tokens;
  switch (source) {
    case Source::kNone: break;
    case Source::kResident: stats_->resident_tokens += usage.cached_prompt_tokens; break;
    case Source::kRestored: stats_->restored_tokens += usage.cached_prompt_tokens; break;
    case Source::kPrefix: stats_->prefix_tokens += usage.cached_prompt_tokens; break;
  }
  stats_->times.queue.Observe(usage.queue_seconds);
  generation.policy_index = PolicyIndex(generation.request().compression.preset);
}

int EngineMeter::PolicyIndex(const std::string& preset) {
  std::vector<PolicyStats>& policies = stats_->policies;
  const auto at = std::find_if(policies.begin(), policies.end(),
                               [&](const PolicyStats& policy) { return policy.policy == preset; });
  const auto index = static_cast<int>(at - policies.begin());
  if (at == policies.end()) policies.emplace_back().policy = preset;
  return index;
}

void EngineMeter::Drew(Generation& generation) {
  const absl::Time now = absl::Now();
  if (generation.timeline.last_token == absl::InfinitePast()) {
    const double first = generation.usage.time_to_first_token_seconds;
    stats_->times.first_token.Observe(first);
    stats_->times.prefill.Observe(first - generation.usage.queue_seconds);
    generation.timeline.first_token = now;
  } else {
    stats_->times.between_tokens.Observe(absl::ToDoubleSeconds(now - generation.timeline.last_token));
  }
  generation.timeline.last_token = now;
  ++stats_->generated_tokens;
}

void EngineMeter::Ended(const Generation& generation, const absl::Status& status, FinishReason reason) {
  const GenerationUsage& usage = generation.usage;
  if (generation.policy_index >= 0) {
    PolicyStats& policy = stats_->policies[generation.policy_index];
    policy.evicted_rows += usage.evicted_rows;
    policy.merged_rows += usage.merged_rows;
  }
  stats_->evicted_rows += usage.evicted_rows;
  stats_->merged_rows += usage.merged_rows;
  stats_->recalled_rows += usage.recalled_rows;
  stats_->late_rows += usage.late_rows;
  stats_->lost_rows += usage.lost_rows;
  if (generation.timeline.last_token != absl::InfinitePast()) {
    stats_->times.decode.Observe(
        absl::ToDoubleSeconds(generation.timeline.last_token - generation.timeline.first_token));
  }
  stats_->times.total.Observe(absl::ToDoubleSeconds(absl::Now() - generation.timeline.arrived));
  if (!status.ok()) {
    ++stats_->requests_failed;
    return;
  }
  ++stats_->ended[static_cast<size_t>(reason)];
  stats_->requests_degraded += usage.degraded ? 1 : 0;
  stats_->requests_over_budget += usage.budget_exceeded ? 1 : 0;
}

RecallMeter* EngineMeter::RecallOf(const Generation& generation) {
  TIDEPOOL_CHECK(generation.policy_index >= 0);
  return &stats_->policies[generation.policy_index].recall;
}

}  // namespace tidepool
