#include "metrics/metrics_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/time/clock.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

TEST(MetricsPageTest, ShowsSamplesInTheOrderOfTheCatalogue) {
  MetricsPage page;
  page.Add("tidepool_cache_hits_total", 7, {{"tier", "memory"}});
  page.Add("tidepool_requests_running", 3);
  page.Add("tidepool_cache_hits_total", 2, {{"tier", "disk"}});
  EXPECT_EQ(page.Text(),
            "# HELP tidepool_requests_running Requests whose prompt or answer is being computed or stored\n"
            "# TYPE tidepool_requests_running gauge\n"
            "tidepool_requests_running 3\n"
            "# HELP tidepool_cache_hits_total Block reads that the tier answered\n"
            "# TYPE tidepool_cache_hits_total counter\n"
            "tidepool_cache_hits_total{tier=\"memory\"} 7\n"
            "tidepool_cache_hits_total{tier=\"disk\"} 2\n");
}

TEST(MetricsPageTest, BucketsOfAHistogramAreCumulative) {
  static constexpr double kBounds[] = {0.5, 1};
  Histogram histogram(kBounds);
  histogram.Observe(0.25);
  histogram.Observe(0.75, 2);
  histogram.Observe(4);
  MetricsPage page;
  page.Add("tidepool_request_decode_time_seconds", histogram);
  const std::string text = page.Text();
  EXPECT_THAT(text, HasSubstr("tidepool_request_decode_time_seconds_count 4\n"));
  EXPECT_THAT(text, HasSubstr("tidepool_request_decode_time_seconds_sum 5.75\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{le=\"0.5\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{le=\"1\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{le=\"+Inf\"} 4\n"));
}

TEST(MetricsPageTest, LabelValuesAreEscaped) {
  MetricsPage page;
  page.Add("tidepool_kv_merged_rows_total", 1, {{"policy", "a \"name\"\nof \\ the operator's"}});
  EXPECT_THAT(page.Text(), HasSubstr(R"({policy="a \"name\"\nof \\ the operator's"} 1)"));
}

TEST(MetricsPageDeathTest, WhatTheCatalogueDoesNotHaveIsABug) {
  MetricsPage page;
  EXPECT_DEATH(page.Add("tidepool_unheard_of", 1), "check failed");
  EXPECT_DEATH(page.Add("tidepool_requests_running", 1, {{"tier", "memory"}}), "check failed");
  EXPECT_DEATH(page.Add("tidepool_cache_hits_total", 1), "check failed");
  EXPECT_DEATH(page.Add("tidepool_request_decode_time_seconds", 1), "check failed");
}

TEST(MetricsPageTest, TheProcessTellsAboutItself) {
  MetricsPage page;
  AddProcessMetrics(page);
  const std::string text = page.Text();
  auto value = [&](const std::string& name) {
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1.0 : std::stod(text.substr(at + name.size() + 2));
  };
  EXPECT_GT(value("process_resident_memory_bytes"), 1 << 20);
  EXPECT_GE(value("process_open_fds"), 3);
  EXPECT_GE(value("process_max_fds"), value("process_open_fds"));
  EXPECT_GT(value("process_cpu_seconds_total"), 0);
  const double now = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  EXPECT_GT(value("process_start_time_seconds"), 1.7e9);
  EXPECT_LT(value("process_start_time_seconds"), now + 2);
}

}  // namespace
}  // namespace tidepool
