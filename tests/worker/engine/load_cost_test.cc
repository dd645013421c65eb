#include "worker/engine/load_cost.h"

#include <gtest/gtest.h>

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

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);

// Loading takes a second for each token, computing a millisecond.
void MakeLoadingSlow(LoadCost* cost) {
  cost->Computed(absl::Milliseconds(1));
  cost->Loaded(64, absl::Seconds(64));
  cost->Loaded(64, absl::Seconds(64));
}

TEST(LoadCostTest, WhatIsNotKnownIsLoaded) {
  LoadCost cost(/*weigh=*/true);
  EXPECT_TRUE(cost.Begin(4096, kNow));
  cost.Loaded(64, absl::Seconds(64));
  cost.Loaded(64, absl::Seconds(64));
  EXPECT_TRUE(cost.GoOn(4096)) << "what computing takes is not known";
  EXPECT_EQ(cost.Patience(64), absl::InfiniteDuration());
  LoadCost other(/*weigh=*/true);
  other.Computed(absl::Milliseconds(1));
  other.Loaded(64, absl::Seconds(64));
  EXPECT_TRUE(other.GoOn(4096)) << "once may have been a pause of the machine";
  EXPECT_EQ(other.Patience(1000), absl::Seconds(2));
}

TEST(LoadCostTest, ACacheThatIsSlowerThanComputingIsLeftAlone) {
  LoadCost cost(/*weigh=*/true);
  MakeLoadingSlow(&cost);
  EXPECT_FALSE(cost.GoOn(64));
  cost.Loaded(64, absl::Milliseconds(6));
  EXPECT_TRUE(cost.GoOn(64)) << "the better of two counts";
}

TEST(LoadCostTest, ALittleLongerIsNoReason) {
  LoadCost cost(/*weigh=*/true);
  cost.Computed(absl::Milliseconds(1));
  cost.Loaded(64, absl::Milliseconds(128));
  cost.Loaded(64, absl::Milliseconds(128));
  EXPECT_TRUE(cost.GoOn(64)) << "64 ms longer";
  EXPECT_FALSE(cost.GoOn(640)) << "640 ms longer";
}

TEST(LoadCostTest, ItIsTriedAgainOnceInAWhile) {
  LoadCost cost(/*weigh=*/true);
  MakeLoadingSlow(&cost);
  EXPECT_TRUE(cost.Begin(4096, kNow)) << "the first probe";
  EXPECT_TRUE(cost.Begin(4096, kNow)) << "nothing is known any more";
  MakeLoadingSlow(&cost);
  EXPECT_FALSE(cost.Begin(4096, kNow + LoadCost::kProbeInterval / 2));
  EXPECT_TRUE(cost.Begin(4096, kNow + LoadCost::kProbeInterval));
}

TEST(LoadCostTest, WhoDoesNotWeighLoads) {
  LoadCost cost(/*weigh=*/false);
  MakeLoadingSlow(&cost);
  EXPECT_TRUE(cost.Begin(4096, kNow));
  EXPECT_TRUE(cost.GoOn(4096));
  EXPECT_EQ(cost.Patience(64), absl::InfiniteDuration());
}

class ContextLoaderCostTest : public testing::Test {
 protected:
  ContextLoaderCostTest() {
    CacheOptions options;
    options.data_dir = dir_.path();
    cache_ = *EmbeddedCache::Open(options, layout_);
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
  LoadCost cost(/*weigh=*/true);
  const LoadedContext loaded = Load(&cost);
  EXPECT_EQ(loaded.keys.size(), kBlocks);
  EXPECT_EQ(loaded.values.size(), kBlocks * layout_.layers);
  EXPECT_EQ(cost.refused_tokens(), 0);
}

TEST_F(ContextLoaderCostTest, AHitThatIsNotIsRefusedAndCounted) {
  LoadCost cost(/*weigh=*/true);
  MakeLoadingSlow(&cost);
  ASSERT_TRUE(cost.Begin(4096, absl::Now()));  // the probe
  MakeLoadingSlow(&cost);
  const LoadedContext loaded = Load(&cost);
  EXPECT_TRUE(loaded.status.ok());
  EXPECT_TRUE(loaded.keys.empty());
  EXPECT_TRUE(loaded.values.empty());
  EXPECT_EQ(cost.refused_tokens(), kBlocks * kBlockTokens);
  EXPECT_EQ(cache_->Stats().fetched_blocks, 0);
}

}  // namespace
}  // namespace tidepool
