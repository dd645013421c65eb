#include "worker/rpc/worker_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cacheservice/api/block_cache.h"
#include "metrics/catalogue.h"
#include "metrics/metrics_page.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

// Stores nothing and has counted a different number of everything.
class CountedCache final : public BlockCache {
 public:
  absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey>, const ReadTerms&) override { return PrefixHit(); }
  void Offload(BlockId, std::string, OffloadOptions, std::function<void(absl::Status)> done) override {
    done(absl::UnavailableError("it stores nothing"));
  }
  void Recall(std::vector<RowSelection>, absl::Time, std::function<void(absl::StatusOr<RecalledRows>)> done) override {
    done(absl::UnavailableError("it stores nothing"));
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      const ReadTerms&) override {
    return std::vector<std::optional<std::string>>(ids.size());
  }
  BlockCacheStats Stats() const override {
    BlockCacheStats stats;
    stats.offloaded_blocks = 11;
    stats.offloaded_bytes = 12;
    stats.offload_failures = 13;
    stats.resent_blocks = 14;
    stats.recalled_bytes = 15;
    stats.fetched_blocks = 16;
    stats.fetched_bytes = 17;
    stats.refetched_blocks = 18;
    stats.reconnects = 19;
    return stats;
  }
};

class WorkerMetricsTest : public testing::Test {
 protected:
  WorkerMetricsTest() { Start(nullptr); }
  void Start(BlockCache* cache) {
    EngineOptions options;
    options.device_kv_bytes = size_t{64} << 20;
    engine_ = *Engine::Create(options, *Model::Load(test::DataPath("tiny_models/llama_f32.gguf")), cache, nullptr);
  }
  std::string Text() {
    MetricsPage page;
    AddWorkerMetrics(*engine_, "acme", page);
    AddTraceMetrics(nullptr, page);
    return page.Text();
  }
  std::unique_ptr<Engine> engine_;
};

TEST_F(WorkerMetricsTest, AllOfTheCatalogueIsThereBeforeTheFirstRequest) {
  const std::string text = Text();
  for (const MetricDefinition& metric : MetricCatalogue()) {
    if (metric.source != MetricSource::kWorker) continue;
    EXPECT_THAT(text, HasSubstr("# TYPE " + std::string(metric.name) + " "));
  }
  EXPECT_THAT(text, HasSubstr("tenant=\"acme\""));
}

TEST_F(WorkerMetricsTest, NumbersAreThoseOfTheRequests) {
  GenerationRequest request;
  request.prompt = {1, 2, 3, 4, 5};
  request.stop.max_tokens = 3;
  request.stop.ignore_eos = true;
  ASSERT_TRUE(test::RunRequest(*engine_, request).result.status.ok());
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("\ntidepool_prompt_tokens_total 5\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_generation_tokens_total 3\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_requests_finished_total{reason=\"length\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_requests_finished_total{reason=\"failed\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_inter_token_latency_seconds_count 2\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_time_to_first_token_seconds_bucket{le=\"+Inf\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_kv_cache_usage_ratio 0\n")) << "nothing runs";
  EXPECT_THAT(text, HasSubstr("\ntidepool_kv_cache_limit_bytes 67108864\n"));
}

TEST_F(WorkerMetricsTest, WhatTheClientOfTheCacheCountsIsThere) {
  CountedCache cache;
  Start(&cache);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("\ntidepool_offload_blocks_total 11\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_offload_bytes_total 12\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_offload_failures_total 13\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_offload_resent_blocks_total 14\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_recall_received_bytes_total 15\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_fetch_blocks_total 16\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_fetch_bytes_total 17\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_fetch_refetched_blocks_total 18\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_reconnects_total 19\n"));
  engine_.reset();
}

}  // namespace
}  // namespace tidepool
