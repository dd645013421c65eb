// The suite itself: with the full cache, and with recall, every answer is right; without recall most are lost.
#include "bench/quality/lookup.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "bench/quality/or_die.h"
#include "tests/support/paths.h"

namespace tidepool::quality {
namespace {

double Metric(const Cell& cell, const std::string& name) {
  for (const auto& [metric, value] : cell.metrics) {
    if (metric == name) return value;
  }
  ADD_FAILURE() << "no metric " << name;
  return -1;
}

TEST(LookupTest, EveryPresetAnswersAllWithSynchronousRecallWithinItsBudget) {
  const std::vector<LookupCase> cases = ReadLookupCases(test::ReferencePath("lookup_model/cases.json"));
  const LookupCase& lookup = cases[0];
  ASSERT_EQ(lookup.context.size(), 500u);
  ASSERT_EQ(lookup.questions.size(), 40u);
  BenchEngine engine(test::ModelPath("lookup.gguf"), 2);
  Grid grid;
  grid.budgets = {0.1};
  grid.recalls = {"off", "sync"};
  for (const Setting& setting : OrDie(Settings(grid))) {
    const Cell cell = MeasureLookup(engine, lookup, setting, absl::ZeroDuration());
    if (setting.recall == "off" && setting.preset != "full") {
      EXPECT_LT(Metric(cell, "turn"), 20) << setting.Name();
      EXPECT_EQ(cell.cost.recalled_rows, 0);
      EXPECT_EQ(cell.cost.index, 0);
    } else {
      EXPECT_EQ(Metric(cell, "turn"), 40) << setting.Name();
      EXPECT_EQ(Metric(cell, "step1"), 40) << setting.Name();
      EXPECT_EQ(Metric(cell, "step2"), 40) << setting.Name();
    }
    EXPECT_EQ(cell.cost.lost_rows, 0);
    if (setting.preset == "full") continue;
    // One page of 16 slots more for each (layer, kv head), in the kept rows and in the recall slots.
    EXPECT_LE(cell.cost.resident, 0.1 + 2 * 16 / 500.0) << setting.Name();
  }
}

Setting OneSetting(const std::string& preset, const std::string& recall, IndexAt index_at) {
  Grid grid;
  grid.presets = {preset};
  grid.budgets = {0.2};
  grid.recalls = {recall};
  grid.index_at = index_at;
  const std::vector<Setting> settings = OrDie(Settings(grid));
  EXPECT_EQ(settings.size(), 2u);  // the first one is the full cache
  return settings.back();
}

TEST(LookupTest, AsynchronousRecallBringsAtTheSecondStepWhatTheFirstOneMissed) {
  const std::vector<LookupCase> cases = ReadLookupCases(test::ReferencePath("lookup_model/cases.json"));
  BenchEngine engine(test::ModelPath("lookup.gguf"), 2);
  const Setting setting = OneSetting("snapkv", "async", IndexAt::kHost);
  const Cell cell = MeasureLookup(engine, cases[0], setting, absl::Milliseconds(20));
  EXPECT_EQ(Metric(cell, "turn"), 40);
  // How many come in time is the machine's; that the first step misses some and the second finds them is the measure's.
  EXPECT_LT(Metric(cell, "step1"), 40);
  EXPECT_GT(Metric(cell, "step2"), Metric(cell, "step1"));
}

// With so few slots a step misses rows that an earlier one noted to be fetched ahead, and which wait for more to come
// together: 38 of 40, however long the steps, when those stayed behind.
TEST(LookupTest, WhatAStepMissesIsAskedForThoughItWaitedToBeFetchedAhead) {
  const std::vector<LookupCase> cases = ReadLookupCases(test::ReferencePath("lookup_model/cases.json"));
  BenchEngine engine(test::ModelPath("lookup.gguf"), 2);
  const Setting setting = OneSetting("snapkv", "async:pq16x4", IndexAt::kDevice);
  double best = 0;
  for (int attempt = 0; attempt < 3 && best < 40; ++attempt) {  // a machine with other work may be late
    best = std::max(best, Metric(MeasureLookup(engine, cases[0], setting, absl::Milliseconds(20)), "step2"));
  }
  EXPECT_EQ(best, 40);
}

// Here the rows that stay fill their pages to the last slot: what is ready must find a place before its head attends.
TEST(LookupTest, WhatIsReadyIsInItsPlaceInTimeThoughAllPagesAreFull) {
  const std::vector<LookupCase> cases = ReadLookupCases(test::ReferencePath("lookup_model/cases.json"));
  BenchEngine engine(test::ModelPath("lookup.gguf"), 2);
  const Setting setting = OneSetting("d2o", "async:pq16x4", IndexAt::kDevice);
  const Cell cell = MeasureLookup(engine, cases[1], setting, absl::Milliseconds(20));
  EXPECT_GT(Metric(cell, "step2"), 30) << "18 when rows that had come were put in place after the attention";
}

}  // namespace
}  // namespace tidepool::quality
