#include "worker/engine/load_cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <latch>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"
#include "worker/engine/context_loader.h"

namespace tidepool {
namespace {

using Verdict = LoadCost::Verdict;

constexpr size_t kTokenBytes = 1000;
constexpr LoadCost::Tokens kHit = {0, 4096};

class LoadCostTest : public testing::Test {
 protected:
  // Each token takes the same wherever it is.
  void Compute(absl::Duration a_token, LoadCost* cost) {
    for (const int depth : {100, 1000, 4000}) cost->Computed(depth, a_token);
  }
  void Load(absl::Duration a_token, LoadCost* cost) {
    for (const int tokens : {64, 64, 512}) cost->Loaded(tokens, tokens * a_token);
  }
  // Loading takes a second for each token, computing a millisecond.
  void MakeLoadingSlow() {
    Compute(absl::Milliseconds(1), &cost_);
    Load(absl::Seconds(1), &cost_);
  }
  // Until a probe is let through; returns how long that was.
  absl::Duration Pause() {
    const absl::Time before = now_;
    while (!cost_.Expect(kHit, now_).loads) now_ += absl::Milliseconds(1);
    return now_ - before;
  }

  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  LoadCost cost_{/*weigh=*/true, kTokenBytes, /*seed=*/1};
};

TEST_F(LoadCostTest, WhatIsNotKnownIsLoaded) {
  EXPECT_EQ(cost_.Begin(kHit, now_), Verdict::kLoad);
  Load(absl::Seconds(1), &cost_);
  EXPECT_TRUE(cost_.GoOn(kHit, now_)) << "what computing takes is not known";
  EXPECT_EQ(cost_.Patience(kHit), absl::InfiniteDuration());
  EXPECT_EQ(cost_.Expect(kHit, now_).compute_bytes_per_second, 0);
  LoadCost other(/*weigh=*/true, kTokenBytes, 1);
  Compute(absl::Milliseconds(1), &other);
  other.Loaded(64, absl::Seconds(64));
  EXPECT_TRUE(other.GoOn(kHit, now_)) << "once may have been a pause of the machine";
  EXPECT_NEAR(absl::ToDoubleSeconds(other.Patience({0, 1000})), 2, 1e-6);
}

TEST_F(LoadCostTest, AServiceThatIsSlowerThanComputingIsLeftAlone) {
  MakeLoadingSlow();
  EXPECT_FALSE(cost_.GoOn({64, 128}, now_));
  EXPECT_EQ(cost_.Begin({0, 128}, now_), Verdict::kCompute);
  const LoadCost::Expectation expected = cost_.Expect(kHit, now_);
  EXPECT_FALSE(expected.loads);
  EXPECT_NEAR(expected.compute_seconds, 4.096, 0.01);
  EXPECT_NEAR(expected.load_seconds, 4096, 10);
  EXPECT_NEAR(expected.compute_bytes_per_second, 1e6, 1e3) << "1,000 tokens in a second";
}

TEST_F(LoadCostTest, OnePauseOfTheMachineIsNoReason) {
  Compute(absl::Milliseconds(1), &cost_);
  Load(absl::Microseconds(100), &cost_);
  cost_.Loaded(512, absl::Seconds(30));
  EXPECT_EQ(cost_.Begin(kHit, now_), Verdict::kLoad);
  cost_.Loaded(512, absl::Seconds(30));
  EXPECT_EQ(cost_.Begin(kHit, now_), Verdict::kCompute) << "two are no pause";
}

TEST_F(LoadCostTest, ALittleLongerIsNoReason) {
  Compute(absl::Milliseconds(1), &cost_);
  Load(absl::Milliseconds(2), &cost_);
  EXPECT_TRUE(cost_.GoOn({0, 64}, now_)) << "64 ms longer";
  EXPECT_FALSE(cost_.GoOn({0, 640}, now_)) << "640 ms longer";
}

// A token takes 1 ms at the beginning and 1 ms more for each thousand before it: loading at 3 ms loses and wins.
TEST_F(LoadCostTest, WhatComputingTakesDependsOnTheDepth) {
  for (int depth = 0; depth < 6000; depth += 300) cost_.Computed(depth, absl::Milliseconds(1 + depth / 1000.0));
  Load(absl::Milliseconds(3), &cost_);
  EXPECT_EQ(cost_.Begin({0, 8000}, now_), Verdict::kLoad) << "5 ms a token on average";
  EXPECT_TRUE(cost_.GoOn({4000, 6000}, now_));
  EXPECT_NEAR(cost_.Expect({4000, 6000}, now_).compute_seconds, 2000 * 0.006, 0.3);
  EXPECT_EQ(cost_.Begin({0, 1000}, now_), Verdict::kCompute) << "1.5 ms a token on average";
}

TEST_F(LoadCostTest, ItIsTriedAgainAfterPausesThatDouble) {
  MakeLoadingSlow();
  EXPECT_EQ(cost_.Begin(kHit, now_), Verdict::kCompute);
  double nominal = 5;
  for (int probe = 0; probe < 8; ++probe) {
    const double pause = absl::ToDoubleSeconds(Pause());
    EXPECT_GE(pause, nominal / 2 - 0.01) << probe;
    EXPECT_LE(pause, nominal + 0.01) << probe;
    nominal = std::min(2 * nominal, 300.0);
    ASSERT_EQ(cost_.Begin(kHit, now_), Verdict::kProbe);
    EXPECT_TRUE(cost_.GoOn({64, 4096}, now_)) << "nothing is known any more";
    Load(absl::Seconds(1), &cost_);
    EXPECT_EQ(cost_.Begin(kHit, now_), Verdict::kCompute) << "one at a time";
    EXPECT_FALSE(cost_.GoOn({128, 4096}, now_));
    cost_.Probed(kHit, 128, absl::Seconds(128), now_);
  }
  Pause();
  ASSERT_EQ(cost_.Begin(kHit, now_), Verdict::kProbe);
  Load(absl::Microseconds(10), &cost_);
  cost_.Probed(kHit, 4096, absl::Milliseconds(41), now_);
  EXPECT_EQ(cost_.Begin(kHit, now_), Verdict::kLoad);
  MakeLoadingSlow();
  EXPECT_EQ(cost_.Begin(kHit, now_), Verdict::kCompute);
  EXPECT_LE(Pause(), absl::Milliseconds(5001)) << "from the beginning";
}

TEST_F(LoadCostTest, AProbeThatGetsNothingHasLost) {
  MakeLoadingSlow();
  EXPECT_EQ(cost_.Begin(kHit, now_), Verdict::kCompute);
  Pause();
  ASSERT_EQ(cost_.Begin(kHit, now_), Verdict::kProbe);
  cost_.Probed(kHit, 0, absl::Milliseconds(1), now_);
  EXPECT_GE(Pause(), absl::Seconds(5)) << "what was known before holds, and the second pause is longer";
}

TEST_F(LoadCostTest, WhoDoesNotWeighLoads) {
  LoadCost cost(/*weigh=*/false, kTokenBytes, 1);
  Compute(absl::Milliseconds(1), &cost);
  Load(absl::Seconds(1), &cost);
  EXPECT_EQ(cost.Begin(kHit, now_), Verdict::kLoad);
  EXPECT_TRUE(cost.GoOn(kHit, now_));
  EXPECT_EQ(cost.Patience(kHit), absl::InfiniteDuration());
  EXPECT_EQ(cost.Expect(kHit, now_).compute_bytes_per_second, 0) << "no tier is to be left out";
}

class ContextLoaderCostTest : public testing::Test {
 protected:
  ContextLoaderCostTest() {
    Reopen();
    std::iota(prompt_.begin(), prompt_.end(), 0);
    std::latch stored(kBlocks * layout_.layers);
    BlockKey parent;
    for (int block = 0; block < kBlocks; ++block) {
      parent = ChildBlockKey("salt", layout_, kExactLineage, parent,
                             absl::MakeConstSpan(prompt_).subspan(block * kBlockTokens, kBlockTokens));
      for (int layer = 0; layer < layout_.layers; ++layer) {
        BlockBuilder builder(layout_, layer, block * kBlockTokens, kBlockTokens);
        cache_->Offload({parent, layer}, std::move(builder).Finish(), {}, [&stored](const absl::Status& status) {
          EXPECT_TRUE(status.ok());
          stored.count_down();
        });
      }
    }
    stored.wait();
  }
  // With nothing in memory.
  void Reopen() {
    cache_.reset();
    CacheOptions options;
    options.data_dir = dir_.path();
    cache_ = *EmbeddedCache::Open(options, layout_);
  }
  LoadedContext Load(LoadCost* cost) {
    const ContextLoader loader(layout_, "tenant", "salt", absl::Seconds(60), cache_.get(), cache_->manifests(), cost);
    return loader.LoadPrefix(prompt_, static_cast<int32_t>(prompt_.size()));
  }

  static constexpr int kBlocks = 5;
  const KvLayout layout_ = test::SmallLayout();
  const test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> cache_;
  std::vector<int32_t> prompt_ = std::vector<int32_t>(kBlocks * kBlockTokens);
};

TEST_F(ContextLoaderCostTest, AHitThatIsWorthItIsLoadedWhole) {
  LoadCost cost(/*weigh=*/true, layout_.token_bytes(), 1);
  const LoadedContext loaded = Load(&cost);
  EXPECT_EQ(loaded.keys.size(), kBlocks);
  EXPECT_EQ(loaded.values.size(), kBlocks * layout_.layers);
  EXPECT_EQ(loaded.slow_tokens, 0);
  EXPECT_EQ(cost.refused_tokens(), 0);
}

TEST_F(ContextLoaderCostTest, AHitThatIsNotIsRefusedAndCounted) {
  LoadCost cost(/*weigh=*/true, layout_.token_bytes(), 1);
  for (int i = 0; i < 2; ++i) {
    cost.Computed(100, absl::Milliseconds(1));
    cost.Loaded(64, absl::Seconds(64));
  }
  const LoadedContext loaded = Load(&cost);
  EXPECT_TRUE(loaded.status.ok());
  EXPECT_TRUE(loaded.keys.empty());
  EXPECT_TRUE(loaded.values.empty());
  EXPECT_EQ(loaded.slow_tokens, kBlocks * kBlockTokens);
  EXPECT_EQ(cost.refused_tokens(), kBlocks * kBlockTokens);
  EXPECT_EQ(cache_->Stats().fetched_blocks, 0);
}

// Two reads of the disk tell the service that it is slower than computing, be that as fast as it is.
TEST_F(ContextLoaderCostTest, ATierThatIsSlowerThanComputingIsLeftOutAndCounted) {
  Reopen();
  LoadCost cost(/*weigh=*/true, layout_.token_bytes(), 1);
  for (int i = 0; i < 2; ++i) cost.Computed(100, absl::Nanoseconds(1));
  const std::vector<BlockKey> chain = ExactChain("salt", layout_, prompt_, prompt_.size());
  for (int block = 0; block < 2; ++block) {
    const BlockId id = {chain[block], 0};
    ASSERT_TRUE((*cache_->FetchBlocks({&id, 1}, absl::InfiniteFuture()))[0].has_value());
  }
  const LoadedContext loaded = Load(&cost);
  EXPECT_TRUE(loaded.keys.empty()) << "layer 1 of the first block is on disk";
  EXPECT_EQ(loaded.slow_tokens, kBlocks * kBlockTokens);
  EXPECT_EQ(cost.refused_tokens(), kBlocks * kBlockTokens);
  LoadCost patient(/*weigh=*/false, layout_.token_bytes(), 1);
  EXPECT_EQ(Load(&patient).keys.size(), kBlocks);
}

}  // namespace
}  // namespace tidepool
