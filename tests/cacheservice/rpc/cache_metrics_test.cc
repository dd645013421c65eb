#include "cacheservice/rpc/cache_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "cacheservice/embedded/cache_storage.h"
#include "cacheservice/rpc/cache_context.h"
#include "metrics/catalogue.h"
#include "metrics/metrics_page.h"
#include "tests/support/blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using testing::HasSubstr;
using testing::Not;

class CacheMetricsTest : public testing::Test {
 protected:
  void Open(CacheOptions options = {}) {
    options.data_dir = dir_.path();
    storage_ = *CacheStorage::Open(options, [this] { return absl::FromUnixSeconds(seconds_); });
    context_ = std::make_unique<CacheContext>(storage_.blocks.get(), storage_.manifests.get(), 1, int64_t{1} << 20,
                                              /*security=*/nullptr);
  }
  // What is over the database goes before it.
  void Close() {
    context_.reset();
    storage_.manifests.reset();
    storage_.pins.reset();
    storage_.blocks.reset();
    storage_.database.reset();
  }
  std::string Text() {
    MetricsPage page;
    AddCacheMetrics(*context_, page);
    return page.Text();
  }
  test::TempDir dir_;
  std::atomic<int64_t> seconds_{1'800'000'000};
  CacheStorage storage_;
  std::unique_ptr<CacheContext> context_;
};

TEST_F(CacheMetricsTest, AllOfTheCatalogueIsThereFromTheStart) {
  Open();
  const std::string text = Text();
  for (const MetricDefinition& metric : MetricCatalogue()) {
    if (metric.source != MetricSource::kCache) continue;
    EXPECT_THAT(text, HasSubstr("# TYPE " + std::string(metric.name) + " "));
  }
}

TEST_F(CacheMetricsTest, HitsAreCountedByTierAndMissesByReason) {
  Open();
  const BlockId stored{test::NumberedKey(1), 0}, unknown{test::NumberedKey(2), 0};
  ASSERT_TRUE(storage_.blocks->Put(stored, test::NumberedValue(1, 0), /*durable=*/false).ok());
  ASSERT_NE(*storage_.blocks->Get(stored), nullptr);
  ASSERT_EQ(*storage_.blocks->Get(unknown), nullptr);
  ASSERT_TRUE(storage_.blocks->GetMany({&unknown, 1}, absl::InfinitePast()).ok());
  ASSERT_TRUE(storage_.blocks->GatherRows({{{stored, 0, 1}}}).ok());
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_hits_total{tier=\"memory\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_hits_total{tier=\"disk\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_misses_total{reason=\"absent\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_misses_total{reason=\"late\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_misses_total{reason=\"corrupt\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_puts_total{tier=\"memory\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_recall_duration_seconds_count 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_recalled_rows_total 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("remote\"}")));

  // From the disk after a restart.
  ASSERT_TRUE(storage_.blocks->Drain().ok());
  Close();
  Open();
  ASSERT_NE(*storage_.blocks->Get(stored), nullptr);
  EXPECT_THAT(Text(), HasSubstr("\ntidepool_cache_tier_reads_total{tier=\"disk\"} 1\n"));
  EXPECT_THAT(Text(), Not(HasSubstr("\ntidepool_cache_tier_read_bytes_per_second{tier=\"disk\"} 0\n")));
  EXPECT_THAT(Text(), HasSubstr("\ntidepool_cache_tier_left_out{tier=\"disk\"} 0\n"));
}

TEST_F(CacheMetricsTest, WhatLeavesTheDiskUnusedIsCounted) {
  CacheOptions options;
  options.disk_ttl = absl::Hours(24);
  Open(options);
  for (const int number : {1, 2, 3}) {
    ASSERT_TRUE(storage_.blocks->Put({test::NumberedKey(number), 0}, test::NumberedValue(number, 0), true).ok());
  }
  seconds_ += absl::ToInt64Seconds(options.disk_ttl);
  ASSERT_NE(*storage_.blocks->Get({test::NumberedKey(3), 0}), nullptr);
  storage_.blocks->ExpireUnused();
  EXPECT_THAT(Text(), HasSubstr("\ntidepool_cache_disk_expired_total 2\n"));
  EXPECT_THAT(Text(), HasSubstr("\ntidepool_cache_disk_renewed_total 1\n"));
  EXPECT_THAT(Text(), HasSubstr("\ntidepool_cache_evictions_total{tier=\"disk\"} 0\n"));
}

TEST_F(CacheMetricsTest, ARemoteTierThatIsAwayIsSeen) {
  CacheOptions options;
  options.remote.url = "redis+unix://" + dir_.path() + "/nobody.sock";
  Open(options);
  EXPECT_THAT(Text(), HasSubstr("\ntidepool_cache_hits_total{tier=\"remote\"} 0\n"));
  EXPECT_THAT(Text(), HasSubstr("\ntidepool_cache_remote_breaker_state 0\n"));
  // Reads go on as misses, until the breaker keeps them from the engine.
  EXPECT_TRUE(test::Eventually([&] {
    EXPECT_EQ(*storage_.blocks->Get({test::NumberedKey(2), 0}), nullptr);
    return storage_.blocks->Stats().remote.unavailable > 0;
  }));
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_remote_breaker_state 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_remote_breaker_opened_total 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntidepool_cache_misses_total{reason=\"absent\"} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("\ntidepool_cache_misses_total{reason=\"unavailable\"} 0\n")));
}

}  // namespace
}  // namespace tidepool
