#include "policies/retain/compression_spec.h"

#include <functional>
#include <limits>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

CompressionSpec Preset(std::string_view name) { return PresetSpec(name).value(); }

TEST(CompressionSpecTest, PresetsAreListedInOrderWithASummaryAndAreValid) {
  EXPECT_THAT(PresetNames(), ElementsAre("full", "streaming", "snapkv", "h2o", "d2o"));
  for (std::string_view name : PresetNames()) {
    EXPECT_FALSE(PresetSummary(name).empty());
    EXPECT_EQ(Preset(name).preset, name);
    EXPECT_TRUE(ValidateCompression(Preset(name)).ok()) << name;
  }
}

TEST(CompressionSpecTest, AnUnknownPresetIsNotFoundAndTheKnownOnesAreListed) {
  const absl::Status status = PresetSpec("pyramid").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'pyramid'"));
  for (std::string_view name : PresetNames()) EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(name)));
  EXPECT_TRUE(PresetSummary("pyramid").empty());
  CompressionSpec spec;
  spec.preset = "";
  EXPECT_EQ(ValidateCompression(spec).code(), absl::StatusCode::kNotFound);
}

TEST(CompressionSpecTest, PresetsHaveTheDefaultsOfTheirPapers) {
  const CompressionSpec snapkv = Preset("snapkv");
  EXPECT_EQ(snapkv.window_tokens, 32);
  EXPECT_EQ(snapkv.pool_kernel, 7);
  EXPECT_EQ(snapkv.pooling, Pooling::kMax);
  EXPECT_EQ(snapkv.schedule, Schedule::kPrefill);
  EXPECT_EQ(Preset("streaming").sink_tokens, 4);
  EXPECT_EQ(Preset("h2o").recent_share, 0.5);
  EXPECT_EQ(Preset("h2o").score, ScoreRule::kColumn);
  const CompressionSpec d2o = Preset("d2o");
  EXPECT_EQ(d2o.sink_tokens, 4);
  EXPECT_EQ(d2o.budget_fraction, 0.2);
  EXPECT_EQ(d2o.recent_share, 0.5);
  EXPECT_EQ(d2o.merge_ema_alpha, 0.5);
  EXPECT_EQ(d2o.merge_ema_beta, 0.5);
  EXPECT_EQ(d2o.layer_budget, LayerBudgetRule::kVariance);
  EXPECT_EQ(d2o.fate, Fate::kMerge);
}

struct BadSpec {
  const char* field;
  const char* preset;
  std::function<void(CompressionSpec&)> change;
};

TEST(CompressionSpecTest, EachFieldOutOfItsRangeIsRefusedByName) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  auto sync = [](CompressionSpec& s) { s.recall.mode = RecallMode::kSync; };
  const BadSpec cases[] = {
      {"budget_tokens", "h2o", [](auto& s) { s.budget_tokens = -1; }},
      {"budget_tokens", "h2o", [](auto& s) { s.budget_tokens = (1 << 24) + 1; }},
      {"budget_fraction", "h2o", [](auto& s) { s.budget_fraction = 0; }},
      {"budget_fraction", "h2o", [](auto& s) { s.budget_fraction = 1.001; }},
      {"budget_fraction", "h2o", [=](auto& s) { s.budget_fraction = nan; }},
      {"sink_tokens", "streaming", [](auto& s) { s.sink_tokens = -1; }},
      {"sink_tokens", "streaming", [](auto& s) { s.sink_tokens = 1025; }},
      {"window_tokens", "snapkv", [](auto& s) { s.window_tokens = 0; }},
      {"window_tokens", "snapkv", [](auto& s) { s.window_tokens = 1025; }},
      {"pool_kernel", "snapkv", [](auto& s) { s.pool_kernel = 0; }},
      {"pool_kernel", "snapkv", [](auto& s) { s.pool_kernel = 4; }},
      {"pool_kernel", "snapkv", [](auto& s) { s.pool_kernel = 257; }},
      {"pooling", "snapkv", [](auto& s) { s.pooling = static_cast<Pooling>(3); }},
      {"group_reduce", "snapkv", [](auto& s) { s.group_reduce = static_cast<GroupReduce>(-1); }},
      {"recent_share", "h2o", [](auto& s) { s.recent_share = 0; }},
      {"recent_share", "h2o", [](auto& s) { s.recent_share = 1; }},
      {"recent_share", "h2o", [=](auto& s) { s.recent_share = nan; }},
      {"merge_ema_alpha", "d2o", [](auto& s) { s.merge_ema_alpha = -0.1; }},
      {"merge_ema_beta", "d2o", [](auto& s) { s.merge_ema_beta = 1.1; }},
      {"dense_layers", "d2o",
       [](auto& s) {
         s.dense_layers = {0, -1};
       }},
      {"dense_layers", "d2o", [](auto& s) { s.dense_layers = {1024}; }},
      {"dense_layers", "d2o", [](auto& s) { s.dense_layers.assign(1025, 3); }},
      {"recall.mode", "d2o", [](auto& s) { s.recall.mode = static_cast<RecallMode>(7); }},
      {"recall.index", "d2o", [](auto& s) { s.recall.index = static_cast<RecallIndex>(1); }},
      {"recall.placement", "d2o", [](auto& s) { s.recall.placement = static_cast<IndexPlacement>(2); }},
      {"recall.on_loss", "d2o", [](auto& s) { s.recall.on_loss = static_cast<OnRecallLoss>(2); }},
      {"recall.share", "d2o", [=](auto& s) { sync(s), s.recall.share = 0.76; }},
      {"recall.share", "d2o", [=](auto& s) { sync(s), s.recall.share = -0.1; }},
      {"recall.rows", "d2o", [=](auto& s) { sync(s), s.recall.rows = -1; }},
      {"recall.ema_beta", "d2o", [=](auto& s) { sync(s), s.recall.ema_beta = 1.1; }},
      {"recall.ema_margin", "d2o", [=](auto& s) { sync(s), s.recall.ema_margin = 0.9; }},
      {"recall.ema_margin", "d2o", [=](auto& s) { sync(s), s.recall.ema_margin = nan; }},
      {"recall.max_rows_per_step", "d2o", [=](auto& s) { sync(s), s.recall.max_rows_per_step = -1; }},
      {"recall.budget_ms", "d2o", [=](auto& s) { sync(s), s.recall.budget_ms = 0; }},
      {"recall.budget_ms", "d2o", [=](auto& s) { sync(s), s.recall.budget_ms = 60'001; }},
  };
  for (const BadSpec& bad : cases) {
    CompressionSpec spec = Preset(bad.preset);
    bad.change(spec);
    const absl::Status status = ValidateCompression(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string("compression.") + bad.field));
  }
}

TEST(CompressionSpecTest, FieldsThatMakeNoSenseTogetherAreRefused) {
  const BadSpec cases[] = {
      {"window_tokens", "snapkv", [](auto& s) { s.budget_tokens = s.window_tokens; }},
      {"window_tokens", "snapkv",
       [](auto& s) {
         s.budget_tokens = s.window_tokens + 1;
         s.recall.mode = RecallMode::kAsync;  // takes half of it
       }},
      {"sink_tokens", "streaming", [](auto& s) { s.budget_tokens = s.sink_tokens; }},
      {"preset full", "full", [](auto& s) { s.recall.mode = RecallMode::kSync; }},
      {"recall.rows", "h2o",
       [](auto& s) {
         s.recall.mode = RecallMode::kSync;
         s.recall.share = 0;
       }},
      {"merge_ema_alpha + merge_ema_beta", "d2o", [](auto& s) { s.merge_ema_alpha = 0.9; }},
      {"stages", "h2o", [](auto& s) { s.fate = Fate::kMerge; }},
      {"stages", "snapkv", [](auto& s) { s.schedule = Schedule::kPrefillAndStep; }},
      {"stages", "d2o", [](auto& s) { s.head_budget = HeadBudgetRule::kAda; }},
      {"stages", "full", [](auto& s) { s.layer_budget = LayerBudgetRule::kPyramid; }},
      {"stages", "streaming", [](auto& s) { s.score = ScoreRule::kLastRow; }},
  };
  for (const BadSpec& bad : cases) {
    CompressionSpec spec = Preset(bad.preset);
    bad.change(spec);
    const absl::Status status = ValidateCompression(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.field));
  }
}

TEST(CompressionSpecTest, TheEndsOfTheRangesAreAllowed) {
  CompressionSpec spec = Preset("snapkv");
  spec.budget_tokens = spec.window_tokens + 1;
  EXPECT_TRUE(ValidateCompression(spec).ok());
  spec = Preset("h2o");
  spec.budget_fraction = 1;
  spec.recall.mode = RecallMode::kSync;
  spec.recall.share = 0.75;
  spec.recall.rows = 1 << 20;
  spec.recall.ema_margin = 1;
  EXPECT_TRUE(ValidateCompression(spec).ok());
  spec.recall.share = 0;  // allowed with rows
  EXPECT_TRUE(ValidateCompression(spec).ok());
}

TEST(CompressionSpecTest, WhateverChangesTheKeptRowsChangesTheFingerprint) {
  std::set<std::string> texts;
  int made = 0;
  auto add = [&](const CompressionSpec& spec) {
    texts.insert(CompressionFingerprint(spec));
    ++made;
  };
  for (std::string_view name : PresetNames()) add(Preset(name));
  const std::function<void(CompressionSpec&)> changes[] = {
      [](auto& s) { s.budget_fraction = 0.2000000001; },
      [](auto& s) { s.budget_tokens = 64; },
      [](auto& s) { s.sink_tokens = 5; },
      [](auto& s) { s.window_tokens = 31; },
      [](auto& s) { s.pool_kernel = 5; },
      [](auto& s) { s.pooling = Pooling::kAvg; },
      [](auto& s) { s.group_reduce = GroupReduce::kMax; },
      [](auto& s) { s.recent_share = 0.4; },
      [](auto& s) { s.merge_ema_alpha = 0.4; },
      [](auto& s) { s.merge_ema_beta = 0.4; },
      [](auto& s) { s.dense_layers = {1}; },
      [](auto& s) {
        s.dense_layers = {1, 2};
      },
      [](auto& s) { s.dense_layers = {12}; },
      [](auto& s) { s.dense_layers_override = true; },
      [](auto& s) { s.recall.mode = RecallMode::kSync; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.share = 0.25; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.rows = 9; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.ema_beta = 0.6; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.ema_margin = 1.5; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.max_rows_per_step = 3; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.placement = IndexPlacement::kDevice; },
  };
  for (const auto& change : changes) {
    CompressionSpec spec = Preset("d2o");
    change(spec);
    add(spec);
  }
  EXPECT_EQ(static_cast<int>(texts.size()), made);
}

TEST(CompressionSpecTest, WhatChangesNothingLeavesTheFingerprintAlone) {
  CompressionSpec spec = Preset("d2o");
  spec.dense_layers = {3, 1, 3};
  CompressionSpec same = Preset("d2o");
  same.dense_layers = {1, 3};
  same.recall.share = 0.7;  // recall is off
  EXPECT_EQ(CompressionFingerprint(spec), CompressionFingerprint(same));
  spec.budget_tokens = same.budget_tokens = 100;
  spec.budget_fraction = 0.9;  // budget_tokens decides
  EXPECT_EQ(CompressionFingerprint(spec), CompressionFingerprint(same));
  CompressionSpec full;
  full.window_tokens = 7;
  EXPECT_EQ(CompressionFingerprint(full), "full");
}

}  // namespace
}  // namespace tidepool
