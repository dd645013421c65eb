#include "cacheservice/tiers/memory_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cacheservice/tiers/memory_policy.h"
#include "cacheservice/tiers/sieve.h"
#include "tests/support/blocks.h"

namespace tidepool {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using PutResult = MemoryTier::PutResult;
using PinResult = MemoryTier::PinResult;

// The tier looks at no byte of a value, so these are plain strings.
constexpr size_t kValueBytes = 1000;

BlockId Id(int number) { return {test::NumberedKey(number), number % 3}; }
BlockValue Value(int number, size_t bytes = kValueBytes) {
  return std::make_shared<const std::string>(bytes, static_cast<char>('a' + number % 26));
}
uint64_t CostOfOne() { return MemoryTier::CostBytes(*Value(0)); }
std::unique_ptr<ReplacementPolicy> MakeSieve(uint64_t, bool) { return std::make_unique<Sieve>(); }

MemoryTier TierOf(int values) { return MemoryTier(values * CostOfOne(), nullptr, MakeSieve); }

TEST(MemoryTierTest, AValueCostsMoreThanItsBytes) {
  EXPECT_GT(MemoryTier::CostBytes(*Value(0)), kValueBytes);
  std::string roomy(10, 'x');
  roomy.reserve(5000);
  EXPECT_GT(MemoryTier::CostBytes(roomy), 5000u) << "what is allocated, not what is used";
}

TEST(MemoryTierTest, WhatWasPutIsFoundAndCounted) {
  MemoryTier tier = TierOf(3);
  EXPECT_EQ(tier.Put(Id(1), Value(1)), PutResult::kStored);
  ASSERT_NE(tier.Get(Id(1)), nullptr);
  EXPECT_EQ(*tier.Get(Id(1)), *Value(1));
  EXPECT_EQ(tier.Get(Id(2)), nullptr);
  EXPECT_EQ(tier.Get({Id(1).key, Id(1).layer + 1}), nullptr) << "another layer is another value";
  EXPECT_TRUE(tier.Contains(Id(1)));
  EXPECT_FALSE(tier.Contains(Id(2)));
  EXPECT_TRUE(tier.Touch(Id(1)));
  EXPECT_FALSE(tier.Touch(Id(2)));
  const TierStats stats = tier.Stats();
  EXPECT_EQ(stats.puts, 1u);
  EXPECT_EQ(stats.hits, 2u);
  EXPECT_EQ(stats.misses, 2u);
  EXPECT_EQ(stats.objects, 1u);
  EXPECT_EQ(stats.bytes, CostOfOne());
  EXPECT_EQ(stats.limit_bytes, 3 * CostOfOne());
  EXPECT_THAT(tier.Ids(), ElementsAre(Id(1)));
}

TEST(MemoryTierTest, ARepeatedPutChangesNothingButRecency) {
  MemoryTier tier = TierOf(2);
  tier.Put(Id(1), Value(1));
  tier.Put(Id(2), Value(2));
  const BlockValue first = tier.Get(Id(2));
  EXPECT_EQ(tier.Put(Id(1), Value(1)), PutResult::kRepeated);
  EXPECT_EQ(tier.Stats().bytes, 2 * CostOfOne());
  EXPECT_EQ(tier.Stats().puts, 2u);
  EXPECT_EQ(tier.Stats().repeated_puts, 1u);
  tier.Erase(Id(2));
  tier.Put(Id(2), Value(2));  // newer than 1, and not read since
  tier.Put(Id(3), Value(3));
  EXPECT_TRUE(tier.Contains(Id(1))) << "the repeated put counts as a read";
  EXPECT_FALSE(tier.Contains(Id(2)));
}

TEST(MemoryTierTest, WhatWasReadOutlivesWhatWasNot) {
  MemoryTier tier = TierOf(3);
  for (int number : {1, 2, 3}) tier.Put(Id(number), Value(number));
  tier.Get(Id(1));
  tier.Touch(Id(2));
  tier.Put(Id(4), Value(4));
  EXPECT_TRUE(tier.Contains(Id(1)));
  EXPECT_TRUE(tier.Contains(Id(2)));
  EXPECT_FALSE(tier.Contains(Id(3)));
  EXPECT_EQ(tier.Stats().evictions, 1u);
}

// The tier's default policy in one shard and in several, where the blocks of a chain are spread.
TEST(MemoryTierTest, ChainsAreGivenUpFromTheirTailsWhereverTheirBlocksLie) {
  constexpr size_t kLargeBytes = 1 << 20;
  for (const uint64_t limit : {uint64_t{60} << 20, uint64_t{256} << 20}) {
    std::vector<BlockId> gone;
    MemoryTier tier(
        limit, [&](const BlockId& id, const BlockValue&, TenantId) { gone.push_back(id); },
        [](uint64_t bytes, bool alone) { return MakeReplacementPolicy("chain", bytes, alone); });
    const int chain_blocks = static_cast<int>(limit >> 20) / 4;
    std::vector<BlockKey> chain;
    for (int i = 0; i < chain_blocks; ++i) chain.push_back(test::NumberedKey(i));
    tier.Refer(chain);
    for (int i = 0; i < chain_blocks; ++i) tier.Put({chain[i], 0}, Value(i, kLargeBytes));
    EXPECT_THAT(gone, IsEmpty());
    // Other chains of one block each push it out.
    for (int i = 0; i < 8 * chain_blocks && tier.Contains({chain[0], 0}); ++i) {
      const BlockKey other = test::NumberedKey(1000 + i);
      tier.Refer({&other, 1});
      tier.Put({other, 0}, Value(i, kLargeBytes));
      ASSERT_LE(tier.Stats().bytes, tier.Stats().limit_bytes);
    }
    std::vector<int> order;  // places in the chain, as they left
    for (const BlockId& id : gone) {
      const auto at = std::find(chain.begin(), chain.end(), id.key);
      if (at != chain.end()) order.push_back(static_cast<int>(at - chain.begin()));
    }
    EXPECT_GT(order.size(), 2u);
    EXPECT_TRUE(std::is_sorted(order.rbegin(), order.rend()));
  }
}

TEST(MemoryTierTest, AValueWorthLessThanAllIsPassedOnAtOnce) {
  std::vector<BlockId> gone;
  MemoryTier tier(
      1 << 20, [&](const BlockId& id, const BlockValue&, TenantId) { gone.push_back(id); },
      [](uint64_t bytes, bool alone) { return MakeReplacementPolicy("chain", bytes, alone); });
  // Four blocks that come back all the time; what comes between never does.
  std::vector<BlockKey> chain;
  for (int i = 0; i < 4; ++i) chain.push_back(test::NumberedKey(i));
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    tier.Refer(chain);
    for (int i = 0; i < 4; ++i) tier.Put({chain[i], 0}, Value(i, 200 << 10));
    const BlockKey other = test::NumberedKey(1000 + round);
    tier.Refer({&other, 1});
    refused += tier.Put({other, 0}, Value(round, 200 << 10)) == PutResult::kRefused;
  }
  EXPECT_GT(refused, 1000) << "once it has seen enough";
  EXPECT_GE(gone.size(), static_cast<size_t>(refused)) << "what is refused goes to the next tier";
  for (const BlockKey& key : chain) EXPECT_TRUE(tier.Contains({key, 0}));
}

TEST(MemoryTierTest, LookingWithoutReadingRefreshesNothing) {
  MemoryTier tier = TierOf(2);
  for (int number : {1, 2}) tier.Put(Id(number), Value(number));
  EXPECT_TRUE(tier.Contains(Id(1)));
  tier.Put(Id(3), Value(3));
  EXPECT_FALSE(tier.Contains(Id(1)));
}

TEST(MemoryTierTest, AValueLargerThanTheTierIsNotTakenAndNothingLeavesForIt) {
  MemoryTier tier = TierOf(2);
  for (int number : {1, 2}) tier.Put(Id(number), Value(number));
  EXPECT_EQ(tier.Put(Id(3), Value(3, 3 * kValueBytes)), PutResult::kNoRoom);
  EXPECT_EQ(tier.Stats().objects, 2u);
  EXPECT_EQ(tier.Stats().evictions, 0u);
  EXPECT_EQ(tier.Get(Id(3)), nullptr);
}

TEST(MemoryTierTest, AValueThatFillsTheTierToTheByteIsTaken) {
  const BlockValue value = Value(1);
  MemoryTier exact(MemoryTier::CostBytes(*value), nullptr, MakeSieve);
  EXPECT_EQ(exact.Put(Id(1), value), PutResult::kStored);
  MemoryTier one_less(MemoryTier::CostBytes(*value) - 1, nullptr, MakeSieve);
  EXPECT_EQ(one_less.Put(Id(1), value), PutResult::kNoRoom);
}

TEST(MemoryTierTest, ATierOfNoBytesTakesNothing) {
  MemoryTier tier(0, nullptr, MakeSieve);
  EXPECT_EQ(tier.Put(Id(1), Value(1, 0)), PutResult::kNoRoom);
  EXPECT_EQ(tier.Get(Id(1)), nullptr);
  EXPECT_EQ(tier.Pin(Id(1)), PinResult::kAbsent);
  EXPECT_EQ(tier.Stats().bytes, 0u);
  EXPECT_THAT(tier.Ids(), IsEmpty());
}

TEST(MemoryTierTest, ALargeValueTakesThePlaceOfSeveralSmallOnes) {
  MemoryTier tier = TierOf(4);
  for (int number : {1, 2, 3, 4}) tier.Put(Id(number), Value(number));
  EXPECT_EQ(tier.Put(Id(5), Value(5, 2 * kValueBytes)), PutResult::kStored);
  EXPECT_THAT(tier.Ids(), testing::UnorderedElementsAre(Id(3), Id(4), Id(5)));
  EXPECT_LE(tier.Stats().bytes, tier.Stats().limit_bytes);
}

TEST(MemoryTierTest, AReaderKeepsAnEvictedValue) {
  MemoryTier tier = TierOf(1);
  tier.Put(Id(1), Value(1));
  const BlockValue held = tier.Get(Id(1));
  tier.Put(Id(2), Value(2));
  ASSERT_FALSE(tier.Contains(Id(1)));
  EXPECT_EQ(*held, *Value(1));
}

TEST(MemoryTierTest, EvictedValuesGoToTheHandlerOnceAndAreFoundUntilItReturns) {
  std::vector<std::pair<BlockId, std::string>> handed;
  MemoryTier* tier_in_handler = nullptr;
  MemoryTier tier(
      2 * CostOfOne(),
      [&](const BlockId& id, const BlockValue& value, TenantId) {
        handed.emplace_back(id, *value);
        const BlockValue seen = tier_in_handler->Get(id);
        ASSERT_NE(seen, nullptr);
        EXPECT_EQ(*seen, *value);
        EXPECT_TRUE(tier_in_handler->Contains(id));
        EXPECT_TRUE(tier_in_handler->Touch(id));
      },
      MakeSieve);
  tier_in_handler = &tier;
  for (int number : {1, 2, 3, 4}) tier.Put(Id(number), Value(number));
  EXPECT_THAT(handed, ElementsAre(std::pair(Id(1), *Value(1)), std::pair(Id(2), *Value(2))));
  EXPECT_FALSE(tier.Contains(Id(1)));
}

TEST(MemoryTierTest, AnErasedValueIsGoneAndItsRoomFree) {
  MemoryTier tier = TierOf(2);
  tier.Put(Id(1), Value(1), {.pin = true});
  tier.Erase(Id(1));
  tier.Erase(Id(2));  // never there
  EXPECT_EQ(tier.Get(Id(1)), nullptr);
  EXPECT_EQ(tier.Stats().bytes, 0u);
  EXPECT_EQ(tier.pinned_bytes(), 0u);
  EXPECT_EQ(tier.pinned_objects(), 0u);
  tier.Unpin(Id(1));  // the holder of the pin does not know
  EXPECT_EQ(tier.Put(Id(1), Value(1)), PutResult::kStored);
}

TEST(MemoryTierTest, APinnedValueStaysUntilItIsUnpinnedAsOftenAsPinned) {
  MemoryTier tier = TierOf(2);
  tier.Put(Id(1), Value(1));
  EXPECT_EQ(tier.Pin(Id(1)), PinResult::kPinned);
  EXPECT_EQ(tier.Put(Id(1), Value(1), {.pin = true}), PutResult::kRepeated);
  EXPECT_EQ(tier.pinned_objects(), 1u);
  EXPECT_EQ(tier.pinned_bytes(), CostOfOne());
  for (int number = 2; number < 20; ++number) tier.Put(Id(number), Value(number));
  tier.Unpin(Id(1));
  for (int number = 20; number < 40; ++number) tier.Put(Id(number), Value(number));
  EXPECT_TRUE(tier.Contains(Id(1))) << "one pin is left";
  tier.Unpin(Id(1));
  EXPECT_EQ(tier.pinned_bytes(), 0u);
  for (int number = 40; number < 43; ++number) tier.Put(Id(number), Value(number));
  EXPECT_FALSE(tier.Contains(Id(1)));
  tier.Unpin(Id(1));   // absent
  tier.Unpin(Id(42));  // there, not pinned
  EXPECT_EQ(tier.pinned_objects(), 0u);
}

TEST(MemoryTierTest, AtMostHalfCanBePinnedSoThatPutsAlwaysFindRoom) {
  MemoryTier tier = TierOf(4);
  for (int number : {1, 2, 3}) tier.Put(Id(number), Value(number));
  EXPECT_EQ(tier.Pin(Id(1)), PinResult::kPinned);
  EXPECT_EQ(tier.Pin(Id(2)), PinResult::kPinned);
  EXPECT_EQ(tier.Pin(Id(3)), PinResult::kTooMuchPinned);
  EXPECT_EQ(tier.Put(Id(3), Value(3), {.pin = true}), PutResult::kNoRoom);
  EXPECT_EQ(tier.Put(Id(4), Value(4), {.pin = true}), PutResult::kNoRoom);
  EXPECT_EQ(tier.Pin(Id(1)), PinResult::kPinned) << "pinned already: takes no more";
  EXPECT_EQ(tier.Pin(Id(9)), PinResult::kAbsent);
  for (int number = 10; number < 30; ++number) EXPECT_EQ(tier.Put(Id(number), Value(number)), PutResult::kStored);
  EXPECT_TRUE(tier.Contains(Id(1)));
  EXPECT_TRUE(tier.Contains(Id(2)));
  EXPECT_EQ(tier.Put(Id(50), Value(50, 3 * kValueBytes)), PutResult::kNoRoom) << "what is pinned leaves no room";
}

TEST(MemoryTierTest, ALargeTierIsShardedAndItsPartsAddUp) {
  MemoryTier tier(uint64_t{1} << 30, nullptr, MakeSieve);
  EXPECT_EQ(tier.Stats().limit_bytes, uint64_t{1} << 30);
  for (int number = 0; number < 200; ++number) tier.Put(Id(number), Value(number));
  EXPECT_EQ(tier.Stats().objects, 200u);
  EXPECT_EQ(tier.Stats().bytes, 200 * CostOfOne());
  EXPECT_EQ(tier.Ids().size(), 200u);
  for (int number = 0; number < 200; ++number) EXPECT_EQ(*tier.Get(Id(number)), *Value(number));
}

// Promise P5 with four threads: one more looks at the account all the time.
TEST(MemoryTierTest, TheLimitHoldsAtEveryMomentUnderFourThreads) {
  constexpr int kIds = 64;
  std::atomic<int64_t> leaving{0};
  std::atomic<uint64_t> handed{0};
  MemoryTier tier(
      12 * CostOfOne(),
      [&](const BlockId&, const BlockValue&, TenantId) {
        ++leaving;
        std::this_thread::yield();
        --leaving;
        ++handed;
      },
      MakeSieve);
  std::atomic<bool> stop{false};
  std::atomic<int> over_limit{0}, wrong{0};
  const auto look = [&] {
    const TierStats stats = tier.Stats();
    if (stats.bytes > stats.limit_bytes || tier.pinned_bytes() > stats.limit_bytes / 2) ++over_limit;
  };
  std::thread watcher([&] {
    while (!stop) look();
  });
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int step = 0; step < 4000; ++step) {
        const int number = static_cast<int>(random() % kIds);
        const size_t bytes = kValueBytes / 2 + number * 31;  // always the same for an id
        switch (random() % 5) {
          case 0:
          case 1: tier.Put(Id(number), Value(number, bytes)); break;
          case 2:
            if (tier.Pin(Id(number)) == PinResult::kPinned) {
              if (!tier.Contains(Id(number))) ++wrong;
              tier.Unpin(Id(number));
            }
            break;
          default: {
            const BlockValue value = tier.Get(Id(number));
            if (value != nullptr && *value != *Value(number, bytes)) ++wrong;
          }
        }
        look();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  stop = true;
  watcher.join();
  EXPECT_EQ(over_limit, 0);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(leaving, 0);
  const TierStats stats = tier.Stats();
  EXPECT_EQ(stats.evictions, handed);
  EXPECT_GT(stats.evictions, 0u);
  EXPECT_EQ(stats.puts, stats.evictions + stats.objects) << "what came in has left or is there";
  EXPECT_EQ(tier.pinned_bytes(), 0u);
  uint64_t bytes = 0;
  for (const BlockId& id : tier.Ids()) bytes += MemoryTier::CostBytes(*tier.Get(id));
  EXPECT_EQ(stats.bytes, bytes);
}

}  // namespace
}  // namespace tidepool
