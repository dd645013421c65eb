#include "policies/retain/compression_spec.h"

#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/retain/preset_table.h"

namespace tidepool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

CompressionSpec Spec(std::string_view name) { return PresetSpec(name).value(); }

TEST(CompressionSpecTest, PresetsAreListedInOrderWithASummaryAndAreValid) {
  EXPECT_THAT(PresetNames(),
              ElementsAre("full", "streaming", "snapkv", "h2o", "d2o", "pyramidkv", "ada-snapkv", "ada-pyramidkv",
                          "tova", "lighttransfer", "simlayerkv", "ahakv", "keyformer", "expected-attention", "corm",
                          "elastic", "prefixkv", "zipvl", "fastgen", "kvzip"));
  for (std::string_view name : PresetNames()) {
    EXPECT_FALSE(PresetSummary(name).empty());
    EXPECT_EQ(Spec(name).preset, name);
    EXPECT_TRUE(ValidateCompression(Spec(name)).ok()) << name;
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
  const CompressionSpec snapkv = Spec("snapkv");
  EXPECT_EQ(snapkv.window_tokens, 32);
  EXPECT_EQ(snapkv.pool_kernel, 7);
  EXPECT_EQ(snapkv.pooling, Pooling::kMax);
  EXPECT_EQ(snapkv.schedule, Schedule::kPrefill);
  EXPECT_EQ(Spec("streaming").sink_tokens, 4);
  EXPECT_EQ(Spec("h2o").recent_share, 0.5);
  EXPECT_EQ(Spec("h2o").score, "column");
  EXPECT_EQ(Spec("h2o").sink_tokens, 0);
  const CompressionSpec d2o = Spec("d2o");
  EXPECT_EQ(d2o.sink_tokens, 4);
  EXPECT_EQ(d2o.budget_fraction, 0.2);
  EXPECT_EQ(d2o.recent_share, 0.5);
  EXPECT_EQ(d2o.merge_ema_alpha, 0.5);
  EXPECT_EQ(d2o.merge_ema_beta, 0.5);
  EXPECT_EQ(d2o.layer_budget, LayerBudgetRule::kVariance);
  EXPECT_EQ(d2o.fate, Fate::kMerge);
}

TEST(CompressionSpecTest, PublishedPoliciesHaveTheDefaultsOfTheirPapers) {
  auto make = [](const char* name) { return FindPreset(name)->make(); };
  EXPECT_EQ(make("pyramidkv").window_tokens, 8);
  EXPECT_EQ(make("pyramidkv").pyramid_beta, 20);
  for (const char* ada : {"ada-snapkv", "ada-pyramidkv"}) {
    EXPECT_EQ(make(ada).window_tokens, 32);
    EXPECT_EQ(make(ada).ada_floor, 0.2);
    EXPECT_FALSE(make(ada).ada_normalize);
  }
  EXPECT_EQ(make("ada-pyramidkv").layer_budget, LayerBudgetRule::kAdaPyramid);
  EXPECT_EQ(make("tova").head_budget, HeadBudgetRule::kLayerSet);
  const CompressionSpec light = make("lighttransfer"), sim = make("simlayerkv");
  EXPECT_EQ(light.lazy_sinks, 4);
  EXPECT_EQ(light.lazy_recent, 1020);
  EXPECT_EQ(light.lazy_last, 32);
  EXPECT_EQ(light.lazy_share, 0.5);
  EXPECT_EQ(light.lazy_threshold, 0);
  EXPECT_EQ(sim.lazy_recent, 1024);
  EXPECT_EQ(sim.lazy_threshold, 0.9);
  EXPECT_EQ(sim.schedule, Schedule::kFirstStep);
  EXPECT_EQ(make("ahakv").aha_recent, 32);
  EXPECT_EQ(make("ahakv").aha_value_kernel, 7);
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
      {"budget_bytes", "h2o", [](auto& s) { s.budget_bytes = -1; }},
      {"decode_budget", "h2o", [](auto& s) { s.decode_budget = static_cast<DecodeBudget>(2); }},
      {"decode_interval", "snapkv", [](auto& s) { s.decode_interval = 0; }},
      {"decode_interval", "snapkv", [](auto& s) { s.decode_interval = 1025; }},
      {"prefill", "snapkv", [](auto& s) { s.prefill = static_cast<PrefillMode>(2); }},
      {"prefill_chunk", "snapkv", [](auto& s) { s.prefill_chunk = 0; }},
      {"prefill_chunk", "snapkv", [](auto& s) { s.prefill_chunk = 96; }},
      {"prefill_chunk", "snapkv", [](auto& s) { s.prefill_chunk = 1 << 17; }},
      {"prefill", "full", [](auto& s) { s.prefill = PrefillMode::kChunked; }},
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
      {"pyramid_beta", "pyramidkv", [](auto& s) { s.pyramid_beta = 0; }},
      {"pyramid_beta", "h2o", [](auto& s) { s.pyramid_beta = -3; }},
      {"ada_floor", "ada-snapkv", [](auto& s) { s.ada_floor = -0.01; }},
      {"ada_floor", "ada-snapkv", [](auto& s) { s.ada_floor = 1.01; }},
      {"ada_floor", "ada-snapkv", [=](auto& s) { s.ada_floor = nan; }},
      {"lazy_sinks", "lighttransfer", [](auto& s) { s.lazy_sinks = -1; }},
      {"lazy_recent", "lighttransfer", [](auto& s) { s.lazy_recent = 0; }},
      {"lazy_last", "lighttransfer", [](auto& s) { s.lazy_last = 0; }},
      {"lazy_last", "lighttransfer", [](auto& s) { s.lazy_last = 1025; }},
      {"lazy_share", "lighttransfer", [](auto& s) { s.lazy_share = 1.5; }},
      {"lazy_share", "lighttransfer", [=](auto& s) { s.lazy_share = nan; }},
      {"lazy_threshold", "simlayerkv", [](auto& s) { s.lazy_threshold = 1; }},
      {"lazy_threshold", "simlayerkv", [](auto& s) { s.lazy_threshold = -0.1; }},
      {"lazy_threshold", "simlayerkv", [=](auto& s) { s.lazy_threshold = nan; }},
      {"lazy_layers", "lighttransfer", [](auto& s) { s.lazy_layers = {-1}; }},
      {"lazy_layers", "lighttransfer", [](auto& s) { s.lazy_layers.assign(1025, 3); }},
      {"aha_recent", "ahakv", [](auto& s) { s.aha_recent = 0; }},
      {"aha_recent", "ahakv", [](auto& s) { s.aha_recent = 1025; }},
      {"aha_value_kernel", "ahakv", [](auto& s) { s.aha_value_kernel = 6; }},
      {"aha_value_kernel", "ahakv", [](auto& s) { s.aha_value_kernel = -1; }},
      {"recall.mode", "d2o", [](auto& s) { s.recall.mode = static_cast<RecallMode>(7); }},
      {"recall.index", "d2o", [](auto& s) { s.recall.index = static_cast<RecallIndex>(6); }},
      {"recall.placement", "d2o", [](auto& s) { s.recall.placement = static_cast<IndexPlacement>(2); }},
      {"recall.on_loss", "d2o", [](auto& s) { s.recall.on_loss = static_cast<OnRecallLoss>(3); }},
      {"recall.trigger", "d2o", [](auto& s) { s.recall.trigger = static_cast<RecallTrigger>(2); }},
      {"recall.trigger", "d2o", [=](auto& s) { sync(s), s.recall.trigger = RecallTrigger::kCosine; }},
      {"recall.select_scope", "d2o", [](auto& s) { s.recall.select_scope = static_cast<SelectScope>(3); }},
      {"recall.select_scope", "d2o",
       [=](auto& s) {
         sync(s), s.recall.mode = RecallMode::kAsync, s.recall.trigger = RecallTrigger::kCosine;
         s.recall.select_scope = SelectScope::kLayer;
       }},
      {"recall.filter_layers", "d2o", [=](auto& s) { sync(s), s.recall.filter_layers = {2}; }},
      {"recall.filter_layers", "d2o",
       [=](auto& s) { sync(s), s.recall.select_scope = SelectScope::kFilter, s.recall.filter_layers = {1024}; }},
      {"recall.share", "d2o", [=](auto& s) { sync(s), s.recall.share = 0.76; }},
      {"recall.share", "d2o", [=](auto& s) { sync(s), s.recall.share = -0.1; }},
      {"recall.rows", "d2o", [=](auto& s) { sync(s), s.recall.rows = -1; }},
      {"recall.ema_beta", "d2o", [=](auto& s) { sync(s), s.recall.ema_beta = 1.1; }},
      {"recall.ema_margin", "d2o", [=](auto& s) { sync(s), s.recall.ema_margin = 0.9; }},
      {"recall.ema_margin", "d2o", [=](auto& s) { sync(s), s.recall.ema_margin = nan; }},
      {"recall.max_rows_per_step", "d2o", [=](auto& s) { sync(s), s.recall.max_rows_per_step = -1; }},
      {"recall.budget_ms", "d2o", [=](auto& s) { sync(s), s.recall.budget_ms = 0; }},
      {"recall.budget_ms", "d2o", [=](auto& s) { sync(s), s.recall.budget_ms = 60'001; }},
      {"recall.staging", "d2o", [=](auto& s) { sync(s), s.recall.staging = 0.5; }},
      {"recall.staging", "d2o", [=](auto& s) { sync(s), s.recall.staging = 65; }},
      {"recall.follow_rows", "d2o", [=](auto& s) { sync(s), s.recall.follow_rows = -1; }},
      {"recall.follow_rows", "d2o", [=](auto& s) { sync(s), s.recall.follow_rows = 65; }},
      {"recall.interval", "d2o", [=](auto& s) { sync(s), s.recall.interval = 0; }},
      {"recall.interval", "d2o", [=](auto& s) { sync(s), s.recall.interval = 65; }},
      {"recall.turn", "d2o", [=](auto& s) { sync(s), s.recall.turn = -0.1; }},
      {"recall.turn", "d2o", [=](auto& s) { sync(s), s.recall.turn = std::nan(""); }},
      {"recall.min_share", "d2o", [=](auto& s) { sync(s), s.recall.min_share = -0.1; }},
      {"recall.min_share", "d2o", [=](auto& s) { sync(s), s.recall.min_share = 0.6; }},
      {"recall.promote_after", "d2o", [=](auto& s) { sync(s), s.recall.promote_after = -1; }},
      {"recall.promote_after", "d2o", [=](auto& s) { sync(s), s.recall.promote_after = 65'537; }},
  };
  for (const BadSpec& bad : cases) {
    CompressionSpec spec = FindPreset(bad.preset)->make();
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
      {"a heavy one and a recent one", "h2o", [](auto& s) { s.budget_tokens = 2; }},
      {"recall slots", "h2o",
       [](auto& s) {
         s.budget_tokens = 50;
         s.recall.mode = RecallMode::kSync;
         s.recall.rows = 48;
       }},
      {"budget_bytes", "h2o", [](auto& s) { s.budget_tokens = 50, s.budget_bytes = 1 << 20; }},
      {"preset full", "full", [](auto& s) { s.recall.mode = RecallMode::kSync; }},
      {"recall.rows", "h2o",
       [](auto& s) {
         s.recall.mode = RecallMode::kSync;
         s.recall.share = 0;
       }},
      {"merge_ema_alpha + merge_ema_beta", "d2o", [](auto& s) { s.merge_ema_alpha = 0.9; }},
      {"window_tokens", "pyramidkv", [](auto& s) { s.budget_tokens = s.window_tokens; }},
      {"aha_recent", "ahakv", [](auto& s) { s.budget_tokens = s.aha_recent; }},
      {"dense_layers", "lighttransfer",
       [](auto& s) {
         s.lazy_layers = {4, 5};
         s.dense_layers = {5};
       }},
      {"preset: full", "full", [](auto& s) { s.score = "column"; }},
      {"preset: full", "full", [](auto& s) { s.schedule = Schedule::kPrefill; }},
      {"layer_budget", "h2o", [](auto& s) { s.layer_budget = static_cast<LayerBudgetRule>(99); }},
      {"head_budget", "h2o", [](auto& s) { s.head_budget = static_cast<HeadBudgetRule>(4); }},
      {"schedule", "h2o", [](auto& s) { s.schedule = static_cast<Schedule>(-1); }},
      {"fate", "h2o", [](auto& s) { s.fate = static_cast<Fate>(3); }},
      {"score: 'windows'", "h2o", [](auto& s) { s.score = "windows"; }},
      {"score_options", "h2o", [](auto& s) { s.score_options["distance"] = 3; }},
  };
  for (const BadSpec& bad : cases) {
    CompressionSpec spec = FindPreset(bad.preset)->make();
    bad.change(spec);
    const absl::Status status = ValidateCompression(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.field));
  }
}

TEST(CompressionSpecTest, StagesThatContradictEachOtherAreRefusedByBothNames) {
  struct {
    const char* preset;
    std::vector<const char*> names;
    std::function<void(CompressionSpec&)> change;
  } const cases[] = {
      {"h2o", {"layer_budget", "full"}, [](auto& s) { s.layer_budget = LayerBudgetRule::kAll; }},
      {"h2o", {"schedule", "full"}, [](auto& s) { s.schedule = Schedule::kNever; }},
      {"streaming", {"head_budget: ada", "position"}, [](auto& s) { s.head_budget = HeadBudgetRule::kAda; }},
      {"tova", {"head_budget", "last-row"}, [](auto& s) { s.head_budget = HeadBudgetRule::kAda; }},
      {"d2o", {"head_budget", "merge"}, [](auto& s) { s.head_budget = HeadBudgetRule::kAda; }},
      {"ada-snapkv", {"head_budget", "merge"}, [](auto& s) { s.fate = Fate::kMerge; }},
      {"tova", {"score", "head_budget"}, [](auto& s) { s.head_budget = HeadBudgetRule::kUniform; }},
      {"streaming", {"score: last-row", "head_budget"}, [](auto& s) { s.score = "last-row"; }},
      {"h2o", {"head_budget", "score column"}, [](auto& s) { s.head_budget = HeadBudgetRule::kLayerSet; }},
      {"snapkv", {"score window", "schedule"}, [](auto& s) { s.schedule = Schedule::kPrefillAndStep; }},
      {"snapkv", {"head_budget: needed", "window"}, [](auto& s) { s.head_budget = HeadBudgetRule::kNeeded; }},
      {"streaming", {"equal mass", "position"}, [](auto& s) { s.layer_budget = LayerBudgetRule::kEqualMass; }},
      {"tova", {"equal mass", "last-row"}, [](auto& s) { s.layer_budget = LayerBudgetRule::kEqualMass; }},
      {"streaming", {"best rows", "position"}, [](auto& s) { s.layer_budget = LayerBudgetRule::kBestRows; }},
      {"kvzip", {"variance", "kvzip"}, [](auto& s) { s.layer_budget = LayerBudgetRule::kVariance; }},
      {"kvzip", {"prefill: chunked", "kvzip"}, [](auto& s) { s.prefill = PrefillMode::kChunked; }},
      {"kvzip", {"score kvzip", "schedule"}, [](auto& s) { s.schedule = Schedule::kPrefillAndStep; }},
  };
  for (const auto& c : cases) {
    CompressionSpec spec = FindPreset(c.preset)->make();
    c.change(spec);
    const absl::Status status = ValidateCompression(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.preset;
    for (const char* name : c.names) EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(CompressionSpecTest, AnyStageOfAPresetMayBeChangedAndTheFingerprintTells) {
  struct {
    const char* preset;
    std::function<void(CompressionSpec&)> change;
  } const cases[] = {
      {"d2o", [](auto& s) { s.fate = Fate::kDrop; }},
      {"h2o", [](auto& s) { s.fate = Fate::kMerge; }},
      {"snapkv", [](auto& s) { s.fate = Fate::kMergeNearest; }},
      {"snapkv", [](auto& s) { s.head_budget = HeadBudgetRule::kAda; }},
      {"snapkv", [](auto& s) { s.layer_budget = LayerBudgetRule::kVariance; }},
      {"snapkv", [](auto& s) { s.layer_budget = LayerBudgetRule::kLazy; }},
      {"snapkv", [](auto& s) { s.layer_budget = LayerBudgetRule::kEqualMass; }},
      {"snapkv", [](auto& s) { s.layer_budget = LayerBudgetRule::kBestRows; }},
      {"kvzip", [](auto& s) { s.head_budget = HeadBudgetRule::kUniform; }},
      {"snapkv", [](auto& s) { s.score = "aha"; }},
      {"ahakv", [](auto& s) { s.head_budget = HeadBudgetRule::kAda; }},
      {"lighttransfer", [](auto& s) { s.head_budget = HeadBudgetRule::kAda; }},
      {"lighttransfer", [](auto& s) { s.score = "aha"; }},
      {"streaming", [](auto& s) { s.schedule = Schedule::kFirstStep; }},
  };
  for (const auto& c : cases) {
    CompressionSpec spec = FindPreset(c.preset)->make();
    const std::string before = CompressionFingerprint(spec);
    c.change(spec);
    EXPECT_TRUE(ValidateCompression(spec).ok()) << c.preset << ": " << ValidateCompression(spec);
    EXPECT_NE(CompressionFingerprint(spec), before) << c.preset;
  }
}

TEST(CompressionSpecTest, TheEndsOfTheRangesAreAllowed) {
  CompressionSpec spec = Spec("snapkv");
  spec.budget_tokens = spec.window_tokens + 2;  // one to choose, and the row of the step under way
  EXPECT_TRUE(ValidateCompression(spec).ok());
  spec.budget_tokens = spec.window_tokens + 1;
  EXPECT_FALSE(ValidateCompression(spec).ok());
  spec.decode_budget = DecodeBudget::kPublished;
  EXPECT_TRUE(ValidateCompression(spec).ok());
  spec = Spec("h2o");
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
  for (const auto& preset : AllPresets()) add(preset.make());
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
      [](auto& s) { s.budget_bytes = 1 << 20; },
      [](auto& s) { s.decode_budget = DecodeBudget::kPublished; },
      [](auto& s) { s.decode_interval = 8; },
      [](auto& s) { s.prefill = PrefillMode::kChunked; },
      [](auto& s) { s.prefill = PrefillMode::kChunked, s.prefill_chunk = 128; },
      [](auto& s) { s.recall.mode = RecallMode::kSync; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.share = 0.25; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.rows = 9; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.ema_beta = 0.6; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.ema_margin = 1.5; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.max_rows_per_step = 3; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.staging = 3; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.follow_rows = 3; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.interval = 3; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.turn = 0.5; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.min_share = 0.01; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.promote_after = 32; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.trigger = RecallTrigger::kCosine; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.select_scope = SelectScope::kLayer; },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.select_scope = SelectScope::kFilter; },
      [](auto& s) {
        s.recall.mode = RecallMode::kAsync, s.recall.select_scope = SelectScope::kFilter, s.recall.filter_layers = {3};
      },
      [](auto& s) { s.recall.mode = RecallMode::kAsync, s.recall.placement = IndexPlacement::kDevice; },
  };
  for (const auto& change : changes) {
    CompressionSpec spec = Spec("d2o");
    change(spec);
    add(spec);
  }
  auto change = [&](const char* name, const std::function<void(CompressionSpec&)>& edit) {
    CompressionSpec spec = FindPreset(name)->make();
    edit(spec);
    add(spec);
  };
  change("pyramidkv", [](auto& s) { s.pyramid_beta = 10; });
  change("ada-pyramidkv", [](auto& s) { s.pyramid_beta = 10; });
  change("ada-snapkv", [](auto& s) { s.ada_floor = 0.5; });
  change("ada-snapkv", [](auto& s) { s.ada_normalize = true; });
  change("lighttransfer", [](auto& s) { s.lazy_sinks = 5; });
  change("lighttransfer", [](auto& s) { s.lazy_recent = 5; });
  change("lighttransfer", [](auto& s) { s.lazy_last = 5; });
  change("lighttransfer", [](auto& s) { s.lazy_share = 0.25; });
  change("lighttransfer", [](auto& s) { s.lazy_layers = {5}; });
  change("simlayerkv", [](auto& s) { s.lazy_threshold = 0.8; });
  change("ahakv", [](auto& s) { s.aha_recent = 5; });
  change("ahakv", [](auto& s) { s.aha_value_kernel = 5; });
  EXPECT_EQ(static_cast<int>(texts.size()), made);
}

TEST(CompressionSpecTest, WhatChangesNothingLeavesTheFingerprintAlone) {
  CompressionSpec spec = Spec("d2o");
  spec.dense_layers = {3, 1, 3};
  CompressionSpec same = Spec("d2o");
  same.dense_layers = {1, 3};
  same.recall.share = 0.7;  // recall is off
  EXPECT_EQ(CompressionFingerprint(spec), CompressionFingerprint(same));
  spec.budget_tokens = same.budget_tokens = 100;
  spec.budget_fraction = 0.9;  // budget_tokens decides
  EXPECT_EQ(CompressionFingerprint(spec), CompressionFingerprint(same));
  same.pyramid_beta = 3;  // stages that d2o does not have
  same.ada_floor = 0.9;
  same.lazy_recent = 8;
  same.aha_recent = 8;
  EXPECT_EQ(CompressionFingerprint(spec), CompressionFingerprint(same));
  CompressionSpec full;
  full.window_tokens = 7;
  EXPECT_EQ(CompressionFingerprint(full), "full");
}

}  // namespace
}  // namespace tidepool
