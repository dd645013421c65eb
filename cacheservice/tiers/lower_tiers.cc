#include "cacheservice/tiers/lower_tiers.h"

#include <random>

#include "absl/time/clock.h"

namespace tidepool {

LowerTiers::LowerTiers(TenantDisks* disk, RemoteTier* remote, absl::Duration retry)
    : disk_(disk),
      remote_(remote),
      disk_gate_("disk", retry, std::random_device{}()),
      remote_gate_("remote", retry, std::random_device{}()) {}

std::vector<absl::StatusOr<BlockValue>> LowerTiers::ReadDisk(absl::Span<const BlockId> ids,
                                                             double compute_bytes_per_second) {
  const absl::Time start = absl::Now();
  const TierGate::Verdict verdict = disk_gate_.Admit(compute_bytes_per_second, start);
  if (verdict == TierGate::Verdict::kLeaveOut) {
    if (!has_remote()) slow_values_ += ids.size();
    return {ids.size(), BlockValue()};
  }
  std::vector<absl::StatusOr<BlockValue>> values = disk_->Get(ids);
  uint64_t bytes = 0;
  for (const absl::StatusOr<BlockValue>& value : values) {
    if (value.ok() && *value != nullptr) bytes += (*value)->size();
  }
  const absl::Time end = absl::Now();
  disk_gate_.Read(verdict, compute_bytes_per_second, bytes, end - start, end);
  return values;
}

RemoteTier::Found LowerTiers::ReadRemote(absl::Span<const BlockId> ids, const ReadTerms& terms) {
  const absl::Time start = absl::Now();
  const TierGate::Verdict verdict = remote_gate_.Admit(terms.compute_bytes_per_second, start);
  if (verdict == TierGate::Verdict::kLeaveOut) {
    slow_values_ += ids.size();
    return {.values = std::vector<BlockValue>(ids.size())};
  }
  RemoteTier::Found found = remote_->Get(ids, terms.deadline);
  uint64_t bytes = 0;
  for (const BlockValue& value : found.values) {
    if (value != nullptr) bytes += value->size();
  }
  const absl::Time end = absl::Now();
  // Of an engine that fails its own breaker keeps everybody away.
  remote_gate_.Read(verdict, terms.compute_bytes_per_second, found.complete ? bytes : 0, end - start, end);
  return found;
}

}  // namespace tidepool
