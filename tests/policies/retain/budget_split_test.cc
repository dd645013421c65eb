#include "policies/retain/budget_split.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/retain/preset_table.h"

namespace tidepool {
namespace {

using ::testing::HasSubstr;

const DeviceShape kShape = {.layers = 10, .kv_heads = 3, .row_bytes = 256, .full_row_bytes = 256};

CompressionSpec Spec(const char* preset) {
  CompressionSpec spec = FindPreset(preset)->make();
  spec.window_tokens = 8;
  return spec;
}

CompressionSpec Recalling(double share, int rows) {
  CompressionSpec spec = Spec("snapkv");
  spec.recall.mode = RecallMode::kSync;
  spec.recall.share = share;
  spec.recall.rows = rows;
  return spec;
}

TEST(BudgetSplitTest, AFractionIsOfTheTokensSeenAndWholeProductsAreExact) {
  CompressionSpec spec = Spec("h2o");
  EXPECT_EQ(SplitBudget(spec, kShape, 1000).kept, 200);
  EXPECT_EQ(SplitBudget(spec, kShape, 1001).kept, 201);
  EXPECT_EQ(BudgetBytes(spec, kShape, 1000), 1000 * 30 * 256 / 5);
}

TEST(BudgetSplitTest, RowsThatTakeLessAreMore) {
  DeviceShape packed = kShape;
  packed.row_bytes = 128;
  EXPECT_EQ(SplitBudget(Spec("h2o"), packed, 1000).kept, 400);
  CompressionSpec bytes = Spec("h2o");
  bytes.budget_bytes = 30 * 256 * 100 + 255;
  EXPECT_EQ(SplitBudget(bytes, kShape, 1000).kept, 100);
  EXPECT_EQ(SplitBudget(bytes, packed, 1000).kept, 200);
  EXPECT_EQ(BudgetBytes(bytes, kShape, 5), bytes.budget_bytes);
}

TEST(BudgetSplitTest, FullKeepsEverythingAndHasNoBudget) {
  EXPECT_EQ(SplitBudget(CompressionSpec(), kShape, 77).kept, 77);
  EXPECT_EQ(BudgetBytes(CompressionSpec(), kShape, 77), 0);
}

TEST(BudgetSplitTest, PartsAddUpToTheBudget) {
  for (const double share : {0.25, 0.5, 0.75}) {
    for (const int rows : {0, 1, 30, 5000}) {
      for (const double index : {0.0, 5.0, 40.0}) {
        DeviceShape shape = kShape;
        shape.index_bytes_per_token = index * 30;
        for (const int tokens : {100, 999, 4000}) {
          const BudgetSplit split = SplitBudget(Recalling(share, rows), shape, tokens);
          EXPECT_EQ(split.index + split.recall + split.kept, split.budget);
          EXPECT_GE(split.index * 256.0, index * tokens - 1e-6);
          EXPECT_GE(split.recall, 1);
        }
      }
    }
  }
}

TEST(BudgetSplitTest, RecallSlotsAreAShareOfWhatTheIndexLeavesOrAsManyAsAsked) {
  EXPECT_EQ(SplitBudget(Recalling(0.25, 0), kShape, 1000).recall, 50);
  EXPECT_EQ(SplitBudget(Recalling(0.25, 30), kShape, 1000).recall, 30);
  EXPECT_EQ(SplitBudget(Recalling(0.25, 30), kShape, 1000).kept, 170) << "the share is not given up besides";
  DeviceShape shape = kShape;
  shape.index_fixed_bytes = 30 * 256 * 40;
  const BudgetSplit split = SplitBudget(Recalling(0.25, 0), shape, 1000);
  EXPECT_EQ(split.index, 40);
  EXPECT_EQ(split.recall, 40);
  EXPECT_EQ(split.kept, 120);
}

TEST(BudgetSplitTest, RecallLeavesThePolicyWhatItNeverGivesUp) {
  const BudgetSplit split = SplitBudget(Recalling(0.5, 500), kShape, 1000);
  EXPECT_EQ(split.kept, 8 + 1 + 1) << "window, one to choose, one of the step";
  EXPECT_EQ(split.recall, 190);
}

TEST(BudgetSplitTest, WhatCannotBeHeldIsRefusedByField) {
  struct Case {
    const char* field;
    const char* preset;
    int tokens;
    std::function<void(CompressionSpec&, DeviceShape&)> change;
  };
  const Case cases[] = {
      {"budget_bytes", "snapkv", 1000, [](auto& s, auto&) { s.budget_bytes = 30 * 256 * 9; }},
      {"recall.rows", "snapkv", 1000,
       [](auto& s, auto&) {
         s.recall.mode = RecallMode::kSync;
         s.recall.rows = 191;
       }},
      {"dense_layers", "snapkv", 1000,
       [](auto& s, auto&) {
         s.dense_layers = {0, 1};
       }},
      {"dense_layers", "d2o", 100'000, [](auto&, auto&) {}},
      {"dense_layers", "h2o", 1000,
       [](auto& s, auto&) {
         s.dense_layers = {4};
         s.budget_tokens = 100;
       }},
      {"placement", "snapkv", 1000, [](auto&, auto& shape) { shape.index_bytes_per_token = 30 * 51; }},
  };
  for (const Case& c : cases) {
    CompressionSpec spec = Spec(c.preset);
    DeviceShape shape = kShape;
    c.change(spec, shape);
    ASSERT_TRUE(ValidateCompression(spec).ok()) << ValidateCompression(spec);
    const absl::Status status = CheckBudget(spec, shape, c.tokens);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.field));
    spec.decode_budget = DecodeBudget::kPublished;
    EXPECT_TRUE(CheckBudget(spec, shape, c.tokens).ok()) << "as published nothing is promised";
  }
}

TEST(BudgetSplitTest, WhatHoldsForLongSequencesIsNotRefusedForShortOnes) {
  EXPECT_TRUE(CheckBudget(Spec("snapkv"), kShape, 3).ok());
  CompressionSpec dense = Spec("snapkv");
  dense.dense_layers = {0};
  EXPECT_TRUE(CheckBudget(dense, kShape, 12).ok());
  CompressionSpec d2o = Spec("d2o");
  d2o.budget_fraction = 0.31;  // three of ten layers are dense
  EXPECT_TRUE(CheckBudget(d2o, kShape, 50).ok());
}

}  // namespace
}  // namespace tidepool
