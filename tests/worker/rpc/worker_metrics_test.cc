#include "worker/rpc/worker_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "metrics/catalogue.h"
#include "metrics/metrics_page.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

class WorkerMetricsTest : public testing::Test {
 protected:
  WorkerMetricsTest() {
    EngineOptions options;
    options.device_kv_bytes = size_t{64} << 20;
    engine_ = *Engine::Create(options, *Model::Load(test::DataPath("tiny_models/llama_f32.gguf")), nullptr, nullptr);
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

}  // namespace
}  // namespace tidepool
