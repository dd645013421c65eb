#include "metrics/catalogue.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"

namespace tidepool {
namespace {

constexpr auto kProcess = MetricSource::kProcess;
constexpr auto kWorker = MetricSource::kWorker;
constexpr auto kCache = MetricSource::kCache;
constexpr auto kCounter = MetricKind::kCounter;
constexpr auto kGauge = MetricKind::kGauge;
constexpr auto kHistogram = MetricKind::kHistogram;

// Names that gateways and autoscalers know from other servers keep their last words (requests_running,
// time_to_first_token_seconds), so that mapping them is a matter of the prefix.
constexpr MetricDefinition kCatalogue[] = {
    {"process_cpu_seconds_total", kProcess, kCounter, "", "Processor time of the process"},
    {"process_resident_memory_bytes", kProcess, kGauge, "", "Resident memory of the process"},
    {"process_open_fds", kProcess, kGauge, "", "Open file descriptors"},
    {"process_max_fds", kProcess, kGauge, "", "Most file descriptors that may be open"},
    {"process_start_time_seconds", kProcess, kGauge, "", "Start of the process, Unix time"},

    // Load.
    {"tidepool_worker_info", kWorker, kGauge, "version,model,fingerprint,tenant",
     "1; what the worker serves is in the labels; tenant: of callers that have none of their own"},
    {"tidepool_requests_running", kWorker, kGauge, "", "Requests whose prompt or answer is being computed or stored"},
    {"tidepool_requests_waiting", kWorker, kGauge, "", "Requests that are queued or loading their context"},
    {"tidepool_kv_cache_usage_ratio", kWorker, kGauge, "",
     "Slot pages in use, of all there are, 0 to 1; idle sessions included"},
    {"tidepool_kv_cache_used_bytes", kWorker, kGauge, "",
     "Slot pages in use: resident keys and values, idle sessions included"},
    {"tidepool_kv_cache_limit_bytes", kWorker, kGauge, "", "All slot pages of the device"},
    {"tidepool_kv_cache_info", kWorker, kGauge, "block_size,num_gpu_blocks",
     "1; tokens of a slot page, and how many of them the device has for each layer and kv head"},
    {"tidepool_steps_total", kWorker, kCounter, "", "Passes of the engine over a batch"},

    // Requests.
    {"tidepool_requests_finished_total", kWorker, kCounter, "reason",
     "Requests that ended: stop, length, cancelled, deadline, failed"},
    {"tidepool_traces_exported_total", kWorker, kCounter, "", "Traces of requests that the collector has taken"},
    {"tidepool_traces_dropped_total", kWorker, kCounter, "",
     "Traces of requests that the collector was too slow for, or did not take"},
    {"tidepool_requests_rejected_total", kWorker, kCounter, "", "Requests refused because the queue was full"},
    {"tidepool_prompt_tokens_total", kWorker, kCounter, "",
     "Tokens of admitted prompts, those of resumed sessions included"},
    {"tidepool_generation_tokens_total", kWorker, kCounter, "", "Generated tokens"},
    {"tidepool_prefix_cache_queries_total", kWorker, kCounter, "",
     "Tokens of prompts for which stored keys and values were looked for"},
    {"tidepool_prefix_cache_hits_total", kWorker, kCounter, "source",
     "Tokens not computed again: resident (the session was still on the device), session (restored from the cache "
     "service), prefix (of another request, from the cache service)"},
    {"tidepool_prefix_refused_tokens_total", kWorker, kCounter, "",
     "Stored tokens of prompts that were computed all the same: loading them would have taken longer"},
    {"tidepool_time_to_first_token_seconds", kWorker, kHistogram, "", "From a request's arrival to its first token"},
    {"tidepool_inter_token_latency_seconds", kWorker, kHistogram, "", "Between two tokens of one answer"},
    {"tidepool_e2e_request_latency_seconds", kWorker, kHistogram, "", "From a request's arrival to its end"},
    {"tidepool_request_queue_time_seconds", kWorker, kHistogram, "",
     "From arrival to the first step, loading included"},
    {"tidepool_request_prefill_time_seconds", kWorker, kHistogram, "", "From the first step to the first token"},
    {"tidepool_request_decode_time_seconds", kWorker, kHistogram, "", "From the first token to the last"},

    // Quality: what compression takes from the attention, and what recall gives back.
    {"tidepool_kv_evicted_rows_total", kWorker, kCounter, "policy",
     "Rows (one token in one layer and kv head) that policies took off the device, by requests that have ended"},
    {"tidepool_kv_merged_rows_total", kWorker, kCounter, "policy", "Those of them that live on in a kept row"},
    {"tidepool_kv_needed_rows_total", kWorker, kCounter, "policy,layers,outcome",
     "Evicted rows that queries needed after all: recalled; late (not there within budget_ms: that step went without); "
     "lost (not to be had). layers: lower, middle, upper third of the model"},
    {"tidepool_attention_evicted_mass_ratio", kWorker, kHistogram, "policy,layers",
     "Share of a decoding step's attention that evicted rows would have, by the recall index; of heads that recall"},
    {"tidepool_attention_dropped_mass_ratio", kWorker, kHistogram, "policy,layers",
     "Share of a decoding step's attention on evicted rows that recall had not brought back when the layer attended"},
    {"tidepool_degraded_requests_total", kWorker, kCounter, "", "Requests answered without rows that were lost"},
    {"tidepool_budget_exceeded_requests_total", kWorker, kCounter, "",
     "Requests whose policy could not keep to its device budget for a while"},

    // The worker's side of the cache service.
    {"tidepool_recall_requests_total", kWorker, kCounter, "mode,outcome",
     "Requests for rows. mode: sync (a step waited), async; outcome: answered, late (given up), failed"},
    {"tidepool_recall_latency_seconds", kWorker, kHistogram, "mode", "From asking for rows to having them"},
    {"tidepool_recall_received_bytes_total", kWorker, kCounter, "", "Bytes of rows that recall received"},
    {"tidepool_offload_blocks_total", kWorker, kCounter, "", "Blocks in one layer stored by the cache service"},
    {"tidepool_offload_bytes_total", kWorker, kCounter, "", "Bytes of them"},
    {"tidepool_offload_failures_total", kWorker, kCounter, "",
     "Blocks in one layer that were not stored: the write-behind queue was full, or the service away or full"},
    {"tidepool_offload_resent_blocks_total", kWorker, kCounter, "",
     "Blocks in one layer that arrived damaged at the cache service and were sent again"},
    {"tidepool_fetch_blocks_total", kWorker, kCounter, "", "Blocks in one layer fetched for sessions and prefixes"},
    {"tidepool_fetch_bytes_total", kWorker, kCounter, "", "Bytes of them"},
    {"tidepool_fetch_refetched_blocks_total", kWorker, kCounter, "",
     "Blocks in one layer that came damaged from the cache service and were fetched again"},
    {"tidepool_cache_reconnects_total", kWorker, kCounter, "", "Streams to the cache service that were made anew"},

    // The cache service.
    {"tidepool_cache_info", kCache, kGauge, "version", "1; what runs is in the labels"},
    {"tidepool_cache_tier_bytes", kCache, kGauge, "tier", "Block values and what keeping them costs"},
    {"tidepool_cache_tier_limit_bytes", kCache, kGauge, "tier", "What the tier may hold"},
    {"tidepool_cache_tier_objects", kCache, kGauge, "tier", "Block values: one for each block and layer"},
    {"tidepool_cache_hits_total", kCache, kCounter, "tier", "Block reads that the tier answered"},
    {"tidepool_cache_misses_total", kCache, kCounter, "reason",
     "Block reads that no tier answered: absent (never stored, or dropped), corrupt (its checksum differed), "
     "unavailable (the remote tier was not asked, or did not answer in time), late (the deadline passed before the "
     "disk was read), slow (computing them was faster: not read)"},
    {"tidepool_cache_puts_total", kCache, kCounter, "tier", "Values newly stored"},
    {"tidepool_cache_repeated_puts_total", kCache, kCounter, "tier", "Values that were there already"},
    {"tidepool_cache_evictions_total", kCache, kCounter, "tier", "Values that left to make room"},
    {"tidepool_cache_disk_expired_total", kCache, kCounter, "",
     "Values that left the disk because nobody had used them for --disk-ttl"},
    {"tidepool_cache_disk_renewed_total", kCache, kCounter, "",
     "Values stored anew on disk when they would have expired, because they had been used"},
    {"tidepool_cache_quota_evictions_total", kCache, kCounter, "",
     "Values that left memory or disk because their tenant was past his quota"},
    {"tidepool_cache_corrupt_total", kCache, kCounter, "tier", "Values whose checksum differed when they were read"},
    {"tidepool_cache_write_failures_total", kCache, kCounter, "tier", "Values that could not be stored"},
    {"tidepool_cache_demotions_total", kCache, kCounter, "", "Values written to disk because memory had no room"},
    {"tidepool_cache_promotions_total", kCache, kCounter, "", "Values copied back to memory"},
    {"tidepool_cache_tier_reads_total", kCache, kCounter, "tier", "Reads that gave values, some at a time"},
    {"tidepool_cache_tier_read_latency_seconds", kCache, kGauge, "tier",
     "What a read of next to nothing takes, by those of late"},
    {"tidepool_cache_tier_read_bytes_per_second", kCache, kGauge, "tier",
     "What reads give beyond that, by those of late; 0: not seen yet"},
    {"tidepool_cache_tier_left_out", kCache, kGauge, "tier",
     "1 while prefixes are computed because that is faster than reading them, 2 while that is tried again, else 0"},
    {"tidepool_cache_left_out_lookups_total", kCache, kCounter, "tier",
     "Lookups of prefixes (of blocks, by workers with several pods) that went without the tier"},
    {"tidepool_cache_queue_drops_total", kCache, kCounter, "",
     "Values that left memory and could not be written to disk: gone"},
    {"tidepool_cache_remote_breaker_state", kCache, kGauge, "",
     "Remote tier: 0 in use, or there is none; 1 left alone because it failed; 2 being tried again"},
    {"tidepool_cache_remote_breaker_opened_total", kCache, kCounter, "", "How often it was left alone after failures"},
    {"tidepool_cache_remote_backlog_bytes", kCache, kGauge, "",
     "Values in the older half of the disk that are not copied to the remote tier yet"},
    {"tidepool_cache_remote_dropped_total", kCache, kCounter, "",
     "Values that left the disk before they were copied to the remote tier"},
    {"tidepool_cache_queue_bytes", kCache, kGauge, "", "Values that wait to be written to disk"},
    {"tidepool_cache_pinned_bytes", kCache, kGauge, "", "Values that may not leave memory"},
    {"tidepool_cache_recall_duration_seconds", kCache, kHistogram, "",
     "Time in which the rows of a request were gathered"},
    {"tidepool_cache_recalled_rows_total", kCache, kCounter, "", "Rows handed out by recall"},
    {"tidepool_cache_recalled_bytes_total", kCache, kCounter, "", "Bytes of them"},
    {"tidepool_cache_missing_rows_total", kCache, kCounter, "", "Rows that recall asked for and that were not there"},
    {"tidepool_cache_sessions", kCache, kGauge, "", "Stored session manifests"},
    {"tidepool_cache_session_bytes", kCache, kGauge, "", "Bytes of them"},
    {"tidepool_cache_session_limit_bytes", kCache, kGauge, "", "Past it saving a session is refused"},
    {"tidepool_cache_session_calls_total", kCache, kCounter, "call", "Manifests asked about: get, put, delete"},
    {"tidepool_cache_session_errors_total", kCache, kCounter, "reason",
     "Of these: absent, stale (two writers of one session), corrupt"},
    {"tidepool_cache_disk_used_bytes", kCache, kGauge, "", "Files of the database, manifests included"},
    {"tidepool_cache_disk_writable", kCache, kGauge, "", "0 after a failed write until one succeeds, else 1"},
    {"tidepool_cache_streams", kCache, kGauge, "", "Open streams of workers"},
    {"tidepool_cache_staging_bytes", kCache, kGauge, "", "Values that have not arrived in full or are not stored yet"},
    {"tidepool_cache_waiting_calls", kCache, kGauge, "", "Calls that wait for a thread"},
};

std::string_view WordFor(MetricSource source) {
  switch (source) {
    case MetricSource::kProcess: return "both";
    case MetricSource::kWorker: return "worker";
    case MetricSource::kCache: return "cache";
  }
  return "";
}

std::string_view WordFor(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter: return "counter";
    case MetricKind::kGauge: return "gauge";
    case MetricKind::kHistogram: return "histogram";
  }
  return "";
}

// Debian's Abseil knows its own string_view only.
absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

absl::Span<const MetricDefinition> MetricCatalogue() { return kCatalogue; }

const MetricDefinition* FindMetric(std::string_view name) {
  const auto* found = std::find_if(std::begin(kCatalogue), std::end(kCatalogue),
                                   [&](const MetricDefinition& metric) { return metric.name == name; });
  return found == std::end(kCatalogue) ? nullptr : found;
}

std::string MetricTable() {
  std::string table = "| metric | of | kind | labels | what |\n|---|---|---|---|---|\n";
  for (const MetricDefinition& metric : kCatalogue) {
    const std::string labels =
        metric.labels.empty() ? "" : absl::StrCat("`", absl::StrReplaceAll(View(metric.labels), {{",", "`, `"}}), "`");
    absl::StrAppend(&table, "| `", View(metric.name), "` | ", View(WordFor(metric.source)), " | ",
                    View(WordFor(metric.kind)), " | ", labels, " | ", View(metric.help), " |\n");
  }
  return table;
}

}  // namespace tidepool
