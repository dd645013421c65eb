#include "worker/rpc/worker_metrics.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/limits.h"
#include "metrics/metrics_page.h"
#include "tracing/span_exporter.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

double Number(int64_t value) { return static_cast<double>(value); }

void AddLoad(const EngineStats& stats, const ModelConfig& config, MetricsPage& page) {
  page.Add("tidepool_requests_running", Number(stats.running_sequences));
  page.Add("tidepool_requests_waiting", Number(stats.waiting_requests));
  const int64_t all = std::max<int64_t>(stats.total_pages, 1);
  page.Add("tidepool_kv_cache_usage_ratio", Number(stats.used_pages) / Number(all));
  page.Add("tidepool_kv_cache_used_bytes", Number(stats.used_pages * stats.page_bytes));
  page.Add("tidepool_kv_cache_limit_bytes", Number(stats.total_pages * stats.page_bytes));
  const int64_t heads = int64_t{config.layers} * config.kv_heads;
  page.Add("tidepool_kv_cache_info", 1,
           {{"block_size", absl::StrCat(kPageSlots)}, {"num_gpu_blocks", absl::StrCat(stats.total_pages / heads)}});
  page.Add("tidepool_steps_total", Number(stats.steps));
}

void AddRequests(const EngineStats& stats, MetricsPage& page) {
  for (int i = 0; i < kFinishReasons; ++i) {
    const auto reason = static_cast<FinishReason>(i);
    page.Add("tidepool_requests_finished_total", Number(stats.count(reason)), {{"reason", NameOf(reason)}});
  }
  page.Add("tidepool_requests_finished_total", Number(stats.requests_failed), {{"reason", "failed"}});
  page.Add("tidepool_requests_rejected_total", Number(stats.requests_rejected));
  page.Add("tidepool_prompt_tokens_total", Number(stats.prompt_tokens));
  page.Add("tidepool_generation_tokens_total", Number(stats.generated_tokens));
  page.Add("tidepool_prefix_cache_queries_total", Number(stats.looked_up_tokens));
  page.Add("tidepool_prefix_cache_hits_total", Number(stats.resident_tokens), {{"source", "resident"}});
  page.Add("tidepool_prefix_cache_hits_total", Number(stats.restored_tokens), {{"source", "session"}});
  page.Add("tidepool_prefix_cache_hits_total", Number(stats.prefix_tokens), {{"source", "prefix"}});
  page.Add("tidepool_prefix_refused_tokens_total", Number(stats.refused_prefix_tokens));
  page.Add("tidepool_time_to_first_token_seconds", stats.times.first_token);
  page.Add("tidepool_inter_token_latency_seconds", stats.times.between_tokens);
  page.Add("tidepool_e2e_request_latency_seconds", stats.times.total);
  page.Add("tidepool_request_queue_time_seconds", stats.times.queue);
  page.Add("tidepool_request_prefill_time_seconds", stats.times.prefill);
  page.Add("tidepool_request_decode_time_seconds", stats.times.decode);
}

void AddPolicy(const PolicyStats& stats, MetricsPage& page) {
  page.Add("tidepool_kv_evicted_rows_total", Number(stats.evicted_rows), {{"policy", stats.policy}});
  page.Add("tidepool_kv_merged_rows_total", Number(stats.merged_rows), {{"policy", stats.policy}});
  static constexpr const char* kGroupNames[kLayerGroups] = {"lower", "middle", "upper"};
  for (int i = 0; i < kLayerGroups; ++i) {
    const RecallMeter::Group& group = stats.recall.groups[i];
    auto rows = [&](const char* outcome, int64_t count) {
      page.Add("tidepool_kv_needed_rows_total", Number(count),
               {{"policy", stats.policy}, {"layers", kGroupNames[i]}, {"outcome", outcome}});
    };
    rows("recalled", group.recalled_rows);
    rows("late", group.late_rows);
    rows("lost", group.lost_rows);
    const MetricsPage::Labels labels = {{"policy", stats.policy}, {"layers", kGroupNames[i]}};
    page.Add("tidepool_attention_evicted_mass_ratio", group.evicted_mass, labels);
    page.Add("tidepool_attention_dropped_mass_ratio", group.dropped_mass, labels);
  }
}

void AddRecall(const RecallRequests::Mode& requests, const char* mode, MetricsPage& page) {
  auto count = [&](const char* outcome, int64_t of) {
    page.Add("tidepool_recall_requests_total", Number(of), {{"mode", mode}, {"outcome", outcome}});
  };
  count("answered", requests.answered);
  count("late", requests.late);
  count("failed", requests.failed);
  page.Add("tidepool_recall_latency_seconds", requests.seconds, {{"mode", mode}});
}

void AddCacheClient(const BlockCacheStats& stats, MetricsPage& page) {
  page.Add("tidepool_recall_received_bytes_total", Number(stats.recalled_bytes));
  page.Add("tidepool_offload_blocks_total", Number(stats.offloaded_blocks));
  page.Add("tidepool_offload_bytes_total", Number(stats.offloaded_bytes));
  page.Add("tidepool_offload_failures_total", Number(stats.offload_failures));
  page.Add("tidepool_offload_resent_blocks_total", Number(stats.resent_blocks));
  page.Add("tidepool_fetch_blocks_total", Number(stats.fetched_blocks));
  page.Add("tidepool_fetch_bytes_total", Number(stats.fetched_bytes));
  page.Add("tidepool_fetch_refetched_blocks_total", Number(stats.refetched_blocks));
  page.Add("tidepool_cache_reconnects_total", Number(stats.reconnects));
}

}  // namespace

void AddWorkerMetrics(const Engine& engine, const std::string& tenant, MetricsPage& page) {
  const EngineStats stats = engine.Stats();
  const Model& model = engine.model();
  page.Add("tidepool_worker_info", 1,
           {{"version", TIDEPOOL_VERSION},
            {"model", model.config().name},
            {"fingerprint", model.fingerprint()},
            {"tenant", tenant}});
  AddLoad(stats, model.config(), page);
  AddRequests(stats, page);
  // Before the first request there is one policy with nothing to say, so that rates begin at zero.
  const std::vector<PolicyStats> none = {{.policy = "full"}};
  for (const PolicyStats& policy : stats.policies.empty() ? none : stats.policies) AddPolicy(policy, page);
  page.Add("tidepool_degraded_requests_total", Number(stats.requests_degraded));
  page.Add("tidepool_budget_exceeded_requests_total", Number(stats.requests_over_budget));
  AddRecall(stats.recalls.sync, "sync", page);
  AddRecall(stats.recalls.async, "async", page);
  AddCacheClient(stats.cache, page);
}

void AddTraceMetrics(const SpanExporter* exporter, MetricsPage& page) {
  const SpanExporterStats stats = exporter != nullptr ? exporter->Stats() : SpanExporterStats();
  page.Add("tidepool_traces_exported_total", Number(stats.exported));
  page.Add("tidepool_traces_dropped_total", Number(stats.dropped));
}

}  // namespace tidepool
