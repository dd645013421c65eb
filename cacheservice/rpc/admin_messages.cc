#include "cacheservice/rpc/admin_messages.h"

#include "absl/time/time.h"

namespace tidepool {
namespace {

void Fill(const TierStats& from, v1::StorageTierStats& to) {
  to.set_limit_bytes(from.limit_bytes);
  to.set_bytes(from.bytes);
  to.set_objects(from.objects);
  to.set_hits(from.hits);
  to.set_misses(from.misses);
  to.set_puts(from.puts);
  to.set_repeated_puts(from.repeated_puts);
  to.set_evictions(from.evictions);
  to.set_corrupt(from.corrupt);
  to.set_write_failures(from.write_failures);
  to.set_expired(from.expired);
  to.set_renewed(from.renewed);
}

v1::RemoteTierStats::Breaker BreakerOf(RemoteTierStats::Breaker state) {
  switch (state) {
    case RemoteTierStats::Breaker::kClosed: return v1::RemoteTierStats::BREAKER_CLOSED;
    case RemoteTierStats::Breaker::kOpen: return v1::RemoteTierStats::BREAKER_OPEN;
    case RemoteTierStats::Breaker::kHalfOpen: return v1::RemoteTierStats::BREAKER_HALF_OPEN;
  }
  return v1::RemoteTierStats::BREAKER_UNSPECIFIED;
}

void Fill(const RemoteTierStats& from, v1::RemoteTierStats& to) {
  to.set_breaker(BreakerOf(from.breaker));
  to.set_breaker_opened(from.breaker_opened);
  to.set_retry_seconds(from.retry_seconds);
  to.set_last_failure(from.last_failure);
  to.set_hits(from.hits);
  to.set_hit_bytes(from.hit_bytes);
  to.set_absent(from.absent);
  to.set_incomplete(from.incomplete);
  to.set_corrupt(from.corrupt);
  to.set_unavailable(from.unavailable);
  to.set_failed(from.failed);
  to.set_puts(from.puts);
  to.set_put_bytes(from.put_bytes);
  to.set_repeated_puts(from.repeated_puts);
  to.set_write_failures(from.write_failures);
  to.set_backlog_bytes(from.backlog_bytes);
  to.set_dropped(from.dropped);
}

v1::TierReadStats::State StateOf(CircuitBreaker::State state) {
  switch (state) {
    case CircuitBreaker::State::kClosed: return v1::TierReadStats::STATE_READ;
    case CircuitBreaker::State::kOpen: return v1::TierReadStats::STATE_LEFT_OUT;
    case CircuitBreaker::State::kHalfOpen: return v1::TierReadStats::STATE_PROBED;
  }
  return v1::TierReadStats::STATE_UNSPECIFIED;
}

}  // namespace

void Fill(const TierReadStats& from, v1::TierReadStats& to) {
  to.set_state(StateOf(from.state));
  to.set_reads(from.reads);
  to.set_latency_seconds(from.latency_seconds);
  to.set_bytes_per_second(from.bytes_per_second);
  to.set_retry_seconds(from.retry_seconds);
  to.set_times_left_out(from.times_left_out);
  to.set_lookups_left_out(from.lookups_left_out);
}

void Fill(const CacheStats& from, v1::GetStatsResponse& to) {
  Fill(from.memory, *to.mutable_memory());
  Fill(from.disk, *to.mutable_disk());
  Fill(from.disk_reads, *to.mutable_disk_reads());
  if (from.remote.enabled) {
    Fill(from.remote, *to.mutable_remote());
    Fill(from.remote_reads, *to.mutable_remote_reads());
  }
  to.set_slow_blocks(from.slow_blocks);
  to.set_demotions(from.demotions);
  to.set_promotions(from.promotions);
  to.set_dropped(from.dropped);
  to.set_recalled_rows(from.recalled_rows);
  to.set_recalled_bytes(from.recalled_bytes);
  to.set_missing_rows(from.missing_rows);
  to.set_disk_used_bytes(from.disk_used_bytes);
  to.set_disk_writable(from.disk_writable);
  to.set_pinned_bytes(from.pinned_bytes);
  to.set_pinned_objects(from.pinned_objects);
  to.set_demotion_queue_bytes(from.demotion_queue_bytes);
}

void Fill(const TenantStats& from, v1::TenantStats& to) {
  to.set_tenant(from.tenant);
  to.mutable_quota()->set_memory_bytes(from.quota.memory_bytes);
  to.mutable_quota()->set_disk_bytes(from.quota.disk_bytes);
  to.mutable_quota()->set_pinned_bytes(from.quota.pinned_bytes);
  to.set_memory_bytes(from.memory_bytes);
  to.set_memory_objects(from.memory_objects);
  to.set_disk_bytes(from.disk_bytes);
  to.set_disk_objects(from.disk_objects);
  to.set_puts(from.puts);
  to.set_quota_evictions(from.quota_evictions);
}

void Fill(const StreamStats& from, v1::StreamStats& to) {
  to.set_id(from.id);
  to.set_kind(from.kind == StreamStats::Kind::kRecall ? v1::StreamStats::KIND_RECALL : v1::StreamStats::KIND_OFFLOAD);
  to.set_peer(from.peer);
  to.set_tenant(from.tenant);
  to.set_open_seconds(absl::ToDoubleSeconds(from.open));
  to.set_requests(from.requests);
  to.set_bytes(from.bytes);
  to.set_under_way(from.under_way);
  to.set_mean_seconds(absl::ToDoubleSeconds(from.mean));
  to.set_longest_seconds(absl::ToDoubleSeconds(from.longest));
}

void Fill(const ManifestSummary& from, v1::SessionSummary& to) {
  to.set_session_id(from.session_id);
  to.set_tokens(from.tokens);
  to.set_revision(from.revision);
  to.set_updated_unix_ms(from.updated_unix_ms);
  to.set_preset(from.preset);
  to.set_manifest_bytes(from.body_bytes);
}

void Fill(const PinInfo& from, v1::PinDescription& to) {
  to.set_tenant(from.name.tenant);
  if (from.name.is_session) {
    to.set_session_id(from.name.name);
  } else {
    to.set_name(from.name.name);
  }
  to.set_blocks(from.blocks);
  to.set_objects(from.objects);
  to.set_bytes(from.bytes);
  to.set_missing_blocks(from.missing_blocks);
  if (from.expires != absl::InfiniteFuture()) to.set_expires_unix_ms(absl::ToUnixMillis(from.expires));
}

void Fill(const RuntimeConfig::Entry& from, v1::ConfigFlag& to) {
  to.set_name(from.flag.name);
  to.set_value(from.flag.value);
  to.set_default_value(from.flag.default_value);
  to.set_changeable(from.changeable);
  to.set_changed(from.changed);
  to.set_help(from.flag.help);
}

}  // namespace tidepool
