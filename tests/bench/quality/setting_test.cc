#include "bench/quality/setting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidepool::quality {
namespace {

TEST(SettingTest, TheFullCacheIsFirstAndEveryPresetThatEvictsFollows) {
  const auto settings = Settings(Grid());
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->front().Name(), "full");
  EXPECT_EQ(settings->size(), 1 + (PresetNames().size() - 1) * 3 * 3);
  for (size_t i = 1; i < settings->size(); ++i) {
    const Setting& setting = (*settings)[i];
    EXPECT_EQ(setting.spec.budget_fraction, setting.budget);
    EXPECT_EQ(setting.spec.recall.mode != RecallMode::kOff, setting.recall != "off");
  }
}

TEST(SettingTest, OnlyTheNamedSettingsAreTaken) {
  Grid grid;
  grid.only = "snapkv 0.2 s";
  const auto settings = Settings(grid);
  ASSERT_TRUE(settings.ok());
  ASSERT_EQ(settings->size(), 3u);
  EXPECT_EQ((*settings)[1].Name(), "snapkv 0.2 sync");
  EXPECT_EQ((*settings)[2].Name(), "ada-snapkv 0.2 sync");
}

TEST(SettingTest, RecallRowsComeOnTopOfTheBudget) {
  Grid grid;
  grid.presets = {"streaming"};
  grid.budgets = {0.1};
  grid.recalls = {"sync"};
  grid.recall_rows = 64;
  const auto settings = Settings(grid);
  ASSERT_TRUE(settings.ok());
  EXPECT_EQ(settings->back().spec.recall.share, 0);
  EXPECT_EQ(settings->back().spec.recall.rows, 64);
}

TEST(SettingTest, EveryPresetIsMeasuredInEveryPrecisionAndTheFullCachePackedToo) {
  Grid grid;
  grid.presets = {"full", "snapkv"};
  grid.budgets = {0.2};
  grid.recalls = {"off", "sync"};
  grid.precisions = {"f16", "kivi2"};
  const auto settings = Settings(grid);
  ASSERT_TRUE(settings.ok()) << settings.status();
  std::vector<std::string> names;
  for (const Setting& setting : *settings) {
    names.push_back(setting.Name());
    const bool packed = setting.preset.find(':') != std::string::npos;
    EXPECT_EQ(setting.spec.kv_precision, packed ? KvPrecision::kKivi2 : KvPrecision::kF16);
  }
  EXPECT_THAT(names, testing::ElementsAre("full", "full:kivi2 1 off", "snapkv 0.2 off", "snapkv 0.2 sync",
                                          "snapkv:kivi2 0.2 off", "snapkv:kivi2 0.2 sync"));
}

TEST(SettingTest, APresetThatMergesMayBeAskedToDrop) {
  Grid grid;
  grid.presets = {"d2o", "d2o:drop"};
  grid.budgets = {0.2};
  grid.recalls = {"off"};
  const auto settings = Settings(grid);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ((*settings)[1].spec.fate, Fate::kMerge);
  EXPECT_EQ((*settings)[2].spec.fate, Fate::kDrop);
  EXPECT_EQ((*settings)[2].Name(), "d2o:drop 0.2 off");
  grid.presets = {"d2o:burn"};
  EXPECT_NE(Settings(grid).status().message().find("d2o:burn"), std::string::npos);
}

TEST(SettingTest, UnknownPresetsModesAndPrecisionsAreRefusedByName) {
  Grid grid;
  grid.presets = {"nothing"};
  EXPECT_NE(Settings(grid).status().message().find("nothing"), std::string::npos);
  grid.presets = {"snapkv"};
  grid.recalls = {"sometimes"};
  EXPECT_NE(Settings(grid).status().message().find("sometimes"), std::string::npos);
  grid.recalls = {"off"};
  grid.precisions = {"int3"};
  EXPECT_NE(Settings(grid).status().message().find("int3"), std::string::npos);
}

}  // namespace
}  // namespace tidepool::quality
