// The rules of Prometheus for names, and that the documentation shows the catalogue as it is.
#include "metrics/catalogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <string>

#include "tests/support/paths.h"

namespace tidepool {
namespace {

using testing::EndsWith;

TEST(CatalogueTest, NamesFollowTheRules) {
  std::set<std::string> seen;
  for (const MetricDefinition& metric : MetricCatalogue()) {
    const std::string name(metric.name);
    EXPECT_TRUE(seen.insert(name).second) << name << " stands twice";
    const std::string prefix = metric.source == MetricSource::kProcess ? "process_" : "tidepool_";
    EXPECT_TRUE(std::regex_match(name, std::regex(prefix + "[a-z0-9_]*[a-z0-9]"))) << name;
    EXPECT_EQ(name.ends_with("_total"), metric.kind == MetricKind::kCounter) << name;
    if (metric.kind == MetricKind::kHistogram) {
      EXPECT_TRUE(name.ends_with("_seconds") || name.ends_with("_ratio")) << name << ": a base unit";
    }
    EXPECT_FALSE(metric.help.empty()) << name;
    EXPECT_TRUE(std::regex_match(std::string(metric.labels), std::regex("([a-z_]+(,[a-z_]+)*)?"))) << name;
    EXPECT_EQ(FindMetric(metric.name), &metric);
  }
  EXPECT_EQ(FindMetric("tidepool_nothing"), nullptr);
}

// TIDEPOOL_UPDATE_GOLDEN=1 writes the table.
TEST(CatalogueTest, TheTableOfTheDocumentationIsTheCatalogue) {
  const std::string path = TIDEPOOL_SOURCE_DIR "/docs/operations.md";
  const std::string page = test::ReadFile(path);
  const std::string begin = "<!-- metrics: written by metrics_test -->\n", end = "<!-- end of metrics -->\n";
  const size_t from = page.find(begin), to = page.find(end);
  ASSERT_NE(from, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  if (std::getenv("TIDEPOOL_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path) << page.substr(0, from) << begin << MetricTable() << page.substr(to);
  } else {
    EXPECT_EQ(page.substr(from + begin.size(), to - from - begin.size()), MetricTable())
        << "docs/operations.md is not up to date: TIDEPOOL_UPDATE_GOLDEN=1 metrics_test";
  }
}

}  // namespace
}  // namespace tidepool
