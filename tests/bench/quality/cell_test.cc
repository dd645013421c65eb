#include "bench/quality/cell.h"

#include <gtest/gtest.h>

#include <cmath>

#include "bench/quality/bench_engine.h"
#include "tests/support/paths.h"

namespace tidepool::quality {
namespace {

TEST(CellTest, TheStandardErrorIsThatOfTheMean) {
  // Sample variance of 1, 2, 3, 6 is 14 / 3.
  const double values[] = {1, 2, 3, 6};
  EXPECT_NEAR(StandardError(values), std::sqrt(14.0 / 3 / 4), 1e-12);
  EXPECT_EQ(StandardError({values, 1}), 0);
  EXPECT_EQ(StandardError({}), 0);
}

TEST(CellTest, TheIndexLiesOnTheDeviceWhereTheBudgetHasRoomForIt) {
  const BenchEngine engine(test::ModelPath("lookup.gguf"), 1);
  Grid grid;
  grid.presets = {"snapkv"};
  grid.budgets = {0.05};
  grid.recalls = {"sync:pq16x4"};
  grid.index_at = IndexAt::kFit;
  const Setting setting = Settings(grid).value().back();
  EXPECT_EQ(engine.Placed(setting, 500).spec.recall.placement, IndexPlacement::kHost);
  EXPECT_EQ(engine.Placed(setting, 7900).spec.recall.placement, IndexPlacement::kDevice);
}

}  // namespace
}  // namespace tidepool::quality
