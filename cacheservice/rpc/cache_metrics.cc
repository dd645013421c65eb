#include "cacheservice/rpc/cache_metrics.h"

#include <cstdint>

#include "cacheservice/rpc/cache_context.h"
#include "metrics/metrics_page.h"

namespace tidepool {
namespace {

double Number(uint64_t value) { return static_cast<double>(value); }

void AddTier(const TierStats& tier, const char* name, MetricsPage& page) {
  page.Add("tidepool_cache_tier_bytes", Number(tier.bytes), {{"tier", name}});
  page.Add("tidepool_cache_tier_limit_bytes", Number(tier.limit_bytes), {{"tier", name}});
  page.Add("tidepool_cache_tier_objects", Number(tier.objects), {{"tier", name}});
  page.Add("tidepool_cache_hits_total", Number(tier.hits), {{"tier", name}});
  page.Add("tidepool_cache_puts_total", Number(tier.puts), {{"tier", name}});
  page.Add("tidepool_cache_repeated_puts_total", Number(tier.repeated_puts), {{"tier", name}});
  page.Add("tidepool_cache_evictions_total", Number(tier.evictions), {{"tier", name}});
  page.Add("tidepool_cache_corrupt_total", Number(tier.corrupt), {{"tier", name}});
  page.Add("tidepool_cache_write_failures_total", Number(tier.write_failures), {{"tier", name}});
}

// How much the engine holds, and what it evicts, is the engine's to say.
void AddRemoteTier(const RemoteTierStats& remote, MetricsPage& page) {
  if (remote.enabled) {
    page.Add("tidepool_cache_hits_total", Number(remote.hits), {{"tier", "remote"}});
    page.Add("tidepool_cache_puts_total", Number(remote.puts), {{"tier", "remote"}});
    page.Add("tidepool_cache_repeated_puts_total", Number(remote.repeated_puts), {{"tier", "remote"}});
    page.Add("tidepool_cache_corrupt_total", Number(remote.corrupt), {{"tier", "remote"}});
    page.Add("tidepool_cache_write_failures_total", Number(remote.write_failures), {{"tier", "remote"}});
  }
  page.Add("tidepool_cache_remote_breaker_state", static_cast<double>(remote.breaker));
  page.Add("tidepool_cache_remote_breaker_opened_total", Number(remote.breaker_opened));
  page.Add("tidepool_cache_remote_backlog_bytes", Number(remote.backlog_bytes));
  page.Add("tidepool_cache_remote_dropped_total", Number(remote.dropped));
}

void AddReads(const TierReadStats& reads, const char* name, MetricsPage& page) {
  page.Add("tidepool_cache_tier_reads_total", Number(reads.reads), {{"tier", name}});
  page.Add("tidepool_cache_tier_read_latency_seconds", reads.latency_seconds, {{"tier", name}});
  page.Add("tidepool_cache_tier_read_bytes_per_second", reads.bytes_per_second, {{"tier", name}});
  page.Add("tidepool_cache_tier_left_out", static_cast<double>(reads.state), {{"tier", name}});
  page.Add("tidepool_cache_left_out_lookups_total", Number(reads.lookups_left_out), {{"tier", name}});
}

void AddBlocks(const CacheStats& stats, MetricsPage& page) {
  AddTier(stats.memory, "memory", page);
  AddTier(stats.disk, "disk", page);
  AddRemoteTier(stats.remote, page);
  AddReads(stats.disk_reads, "disk", page);
  if (stats.remote.enabled) AddReads(stats.remote_reads, "remote", page);
  // What the disk does not have is asked of the remote tier, if there is one. A damaged value on disk counts as a miss
  // there, too.
  const RemoteTierStats& remote = stats.remote;
  const uint64_t absent = remote.enabled ? remote.absent + remote.incomplete : stats.disk.misses - stats.disk.corrupt;
  page.Add("tidepool_cache_misses_total", Number(absent), {{"reason", "absent"}});
  page.Add("tidepool_cache_misses_total", Number(stats.memory.corrupt + stats.disk.corrupt + remote.corrupt),
           {{"reason", "corrupt"}});
  page.Add("tidepool_cache_misses_total", Number(remote.unavailable + remote.failed), {{"reason", "unavailable"}});
  page.Add("tidepool_cache_misses_total", Number(stats.late_blocks), {{"reason", "late"}});
  page.Add("tidepool_cache_misses_total", Number(stats.slow_blocks), {{"reason", "slow"}});
  page.Add("tidepool_cache_disk_expired_total", Number(stats.disk.expired));
  page.Add("tidepool_cache_disk_renewed_total", Number(stats.disk.renewed));
  page.Add("tidepool_cache_demotions_total", Number(stats.demotions));
  page.Add("tidepool_cache_promotions_total", Number(stats.promotions));
  page.Add("tidepool_cache_queue_drops_total", Number(stats.dropped));
  page.Add("tidepool_cache_queue_bytes", Number(stats.demotion_queue_bytes));
  page.Add("tidepool_cache_pinned_bytes", Number(stats.pinned_bytes));
  page.Add("tidepool_cache_recall_duration_seconds", stats.gather_seconds);
  page.Add("tidepool_cache_recalled_rows_total", Number(stats.recalled_rows));
  page.Add("tidepool_cache_recalled_bytes_total", Number(stats.recalled_bytes));
  page.Add("tidepool_cache_missing_rows_total", Number(stats.missing_rows));
  page.Add("tidepool_cache_disk_used_bytes", Number(stats.disk_used_bytes));
  page.Add("tidepool_cache_disk_writable", stats.disk_writable ? 1 : 0);
}

void AddSessions(const ManifestStats& stats, MetricsPage& page) {
  page.Add("tidepool_cache_sessions", static_cast<double>(stats.sessions));
  page.Add("tidepool_cache_session_bytes", Number(stats.bytes));
  page.Add("tidepool_cache_session_limit_bytes", Number(stats.limit_bytes));
  page.Add("tidepool_cache_session_calls_total", Number(stats.gets), {{"call", "get"}});
  page.Add("tidepool_cache_session_calls_total", Number(stats.puts), {{"call", "put"}});
  page.Add("tidepool_cache_session_calls_total", Number(stats.deletes), {{"call", "delete"}});
  page.Add("tidepool_cache_session_errors_total", Number(stats.misses), {{"reason", "absent"}});
  page.Add("tidepool_cache_session_errors_total", Number(stats.stale), {{"reason", "stale"}});
  page.Add("tidepool_cache_session_errors_total", Number(stats.corrupt), {{"reason", "corrupt"}});
}

}  // namespace

void AddCacheMetrics(const CacheContext& context, MetricsPage& page) {
  page.Add("tidepool_cache_info", 1, {{"version", TIDEPOOL_VERSION}});
  AddBlocks(context.blocks->Stats(), page);
  AddSessions(context.manifests->Stats(), page);
  uint64_t quota_evictions = 0;
  for (const TenantStats& tenant : context.blocks->Tenants()) quota_evictions += tenant.quota_evictions;
  page.Add("tidepool_cache_quota_evictions_total", Number(quota_evictions));
  page.Add("tidepool_cache_streams", static_cast<double>(context.streams.size()));
  page.Add("tidepool_cache_staging_bytes", static_cast<double>(context.staging_bytes.load()));
  page.Add("tidepool_cache_waiting_calls", static_cast<double>(context.waiting_calls.load()));
}

}  // namespace tidepool
