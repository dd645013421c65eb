#include "cacheservice/tiers/chain_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace tidepool {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const auto kAny = [](uint32_t) { return true; };

// Blocks are numbers from 1; a slot holds `layer` of a block.
class Cache {
 public:
  static constexpr uint32_t kLayers = 4;
  explicit Cache(size_t most_ghosts, bool alone = true) : policy(most_ghosts, alone) {}

  static uint32_t SlotOf(uint64_t block, uint32_t layer = 0) { return static_cast<uint32_t>(block) * kLayers + layer; }
  void Refer(const std::vector<uint64_t>& chain) {
    std::vector<ChainPlace> places;
    uint32_t new_blocks = 0;
    for (size_t i = 0; i < chain.size(); ++i) {
      places.push_back({.block = chain[i], .parent = i == 0 ? 0 : chain[i - 1]});
      new_blocks += !policy.Remembers(chain[i]);
    }
    policy.Refer(places, new_blocks);
  }
  void Store(uint64_t block, uint64_t parent = 0, uint32_t layer = 0) {
    policy.Insert(SlotOf(block, layer), {.block = block, .parent = parent});
  }
  void Request(const std::vector<uint64_t>& chain) {
    Refer(chain);
    for (size_t i = 0; i < chain.size(); ++i) Store(chain[i], i == 0 ? 0 : chain[i - 1]);
  }
  uint64_t Evict() {
    const uint32_t slot = *policy.Victim(kAny);
    policy.Remove(slot);
    return slot / kLayers;
  }

  ChainPolicy policy;
};

TEST(ChainPolicyTest, AChainIsGivenUpFromItsTail) {
  Cache cache(100);
  cache.Request({1, 2, 3, 4});
  for (const uint64_t block : {4, 3, 2, 1}) EXPECT_EQ(cache.Evict(), block);
  EXPECT_EQ(cache.policy.Victim(kAny), std::nullopt);
}

TEST(ChainPolicyTest, OfAChainThatDoesNotFitTheHeadStays) {
  constexpr size_t kHeld = 40, kChain = 60;
  Cache cache(100);
  std::vector<uint64_t> chain(kChain);
  for (size_t i = 0; i < kChain; ++i) chain[i] = i + 1;
  std::set<uint64_t> held;
  for (int request = 0; request < 5; ++request) {
    cache.Refer(chain);
    for (size_t i = 0; i < kChain; ++i) {
      if (!held.insert(chain[i]).second) continue;
      cache.Store(chain[i], i == 0 ? 0 : chain[i - 1]);
      if (held.size() > kHeld) held.erase(cache.Evict());
    }
    ASSERT_EQ(held.size(), kHeld);
    EXPECT_EQ(*held.rbegin(), kHeld) << "the first so many, after request " << request;
  }
}

TEST(ChainPolicyTest, WhatSeveralChainsShareGoesLast) {
  Cache cache(100);
  cache.Request({1, 2, 3});
  cache.Refer({1, 2, 5});
  cache.Store(5, 2);
  std::set<uint64_t> first = {cache.Evict(), cache.Evict()};
  EXPECT_THAT(first, ElementsAre(3, 5));
  EXPECT_EQ(cache.Evict(), 2u);
  EXPECT_EQ(cache.Evict(), 1u);
}

TEST(ChainPolicyTest, ChainsThatNobodyAnnouncedAreKnownFromTheParentsOfTheirBlocks) {
  Cache cache(100);
  cache.Store(1);
  cache.Store(2, 1);
  cache.Store(3, 2);
  for (const uint64_t block : {3, 2, 1}) EXPECT_EQ(cache.Evict(), block);
}

TEST(ChainPolicyTest, TheLayersOfABlockLeaveTogether) {
  Cache cache(100);
  cache.Refer({1});
  cache.Refer({2});
  for (uint32_t layer = 0; layer < Cache::kLayers; ++layer) {
    for (const uint64_t block : {1, 2}) cache.Store(block, 0, layer);
  }
  EXPECT_EQ(cache.policy.held_blocks(), 2u);
  const uint64_t first = cache.Evict();
  for (uint32_t layer = 1; layer < Cache::kLayers; ++layer) EXPECT_EQ(cache.Evict(), first);
  EXPECT_EQ(cache.policy.held_blocks(), 1u);
  EXPECT_EQ(cache.Evict(), 3 - first);
}

TEST(ChainPolicyTest, ABlockThatHasComeBackIsNotTheNextToLeaveForHavingLeft) {
  Cache cache(100);
  cache.Request({1});
  cache.Request({2});
  EXPECT_EQ(cache.Evict(), 1u);
  cache.Request({1});
  EXPECT_EQ(cache.Evict(), 2u);
}

TEST(ChainPolicyTest, WhatMayNotLeaveStaysAndKeepsNothingElse) {
  Cache cache(100);
  cache.Request({1, 2, 3});
  const auto not_3 = [](uint32_t slot) { return slot != Cache::SlotOf(3); };
  std::optional<uint32_t> victim = cache.policy.Victim(not_3);
  ASSERT_TRUE(victim.has_value()) << "3 follows both others, and is pinned";
  EXPECT_NE(*victim, Cache::SlotOf(3));
  cache.policy.Remove(*victim);
  victim = cache.policy.Victim(not_3);
  ASSERT_TRUE(victim.has_value());
  cache.policy.Remove(*victim);
  EXPECT_EQ(cache.policy.Victim(not_3), std::nullopt);
  EXPECT_EQ(cache.Evict(), 3u);
}

TEST(ChainPolicyTest, GhostsAreRememberedUpToTheirLimitTheOldestForgottenFirst) {
  Cache cache(2);
  cache.Refer({1});
  cache.Refer({2});
  cache.Refer({1});
  cache.Refer({3});
  EXPECT_TRUE(cache.policy.Remembers(1)) << "referenced again";
  EXPECT_FALSE(cache.policy.Remembers(2));
  EXPECT_TRUE(cache.policy.Remembers(3));
  EXPECT_EQ(cache.policy.ghosts(), 2u);
  cache.Store(3);
  EXPECT_EQ(cache.policy.ghosts(), 1u) << "held: no ghost";
  Cache none(0);
  none.Request({1, 2});
  EXPECT_EQ(none.policy.ghosts(), 0u);
  EXPECT_EQ(none.policy.held_blocks(), 2u);
}

TEST(ChainPolicyTest, AConversationThatGoesOnOutlivesOneThatHasNot) {
  Cache cache(10000);
  uint64_t next = 1000;
  auto say = [&](std::vector<uint64_t>* chain) {
    for (int i = 0; i < 4; ++i) chain->push_back(next++);
    cache.Refer(*chain);
  };
  // One conversation of three turns comes on ten requests that nothing follows.
  for (int i = 0; i < 400; ++i) {
    std::vector<uint64_t> chain;
    for (int turn = 0; turn < 3; ++turn) {
      say(&chain);
      for (int j = 0; j < 3; ++j) {
        std::vector<uint64_t> other;
        say(&other);
      }
    }
  }
  cache.Request({1, 2, 3, 4});
  cache.Refer({1, 2, 3, 4, 5, 6, 7, 8});
  for (uint64_t block = 5; block <= 8; ++block) cache.Store(block, block - 1);
  cache.Request({11, 12, 13, 14});  // more recent, but new
  for (int i = 0; i < 8; ++i) EXPECT_GT(cache.Evict(), 4u);
  EXPECT_EQ(cache.policy.held_blocks(), 4u);
}

// Answers that have ended are to make room for those that go on, however often rows of theirs were read.
TEST(ChainPolicyTest, RowsThatAnAnswerReadsKeepItsBlocksWhileItLastsAndNoLonger) {
  Cache cache(100);
  auto chain_from = [](uint64_t first) {
    std::vector<uint64_t> chain(10);
    for (size_t i = 0; i < chain.size(); ++i) chain[i] = first + i;
    return chain;
  };
  const std::vector<uint64_t> ended = chain_from(100), goes_on = chain_from(200), other = chain_from(300);
  auto read = [&](const std::vector<uint64_t>& chain) {
    for (const uint64_t block : chain) cache.policy.TouchRows(Cache::SlotOf(block));
  };
  cache.Request(ended);
  for (int step = 0; step < 50; ++step) read(ended);
  cache.Request(goes_on);
  cache.Request(other);
  read(goes_on);
  std::vector<uint64_t> left;
  for (int i = 0; i < 30; ++i) left.push_back(cache.Evict());
  const std::set<uint64_t> first(left.begin(), left.begin() + 10), last(left.begin() + 20, left.end());
  EXPECT_EQ(first, std::set<uint64_t>(ended.begin(), ended.end()));
  EXPECT_EQ(last, std::set<uint64_t>(goes_on.begin(), goes_on.end()));
}

TEST(ChainPolicyTest, LinksThatCrossPoliciesAreHandedOut) {
  Cache even(100, /*alone=*/false), odd(100, /*alone=*/false);
  odd.policy.Refer(std::vector<ChainPlace>{{.block = 1, .parent = 0}}, 2);
  even.policy.Refer(std::vector<ChainPlace>{{.block = 2, .parent = 1}}, 2);
  odd.Store(1);
  odd.Store(9);
  even.Store(2, 1);
  std::vector<ChainLink> links = even.policy.TakeLinks();
  ASSERT_EQ(links.size(), 1u);
  EXPECT_EQ(links[0].parent, 1u);
  EXPECT_TRUE(links[0].held);
  odd.policy.Apply(links[0]);
  EXPECT_EQ(odd.policy.Victim(kAny), Cache::SlotOf(9)) << "1 is followed by a block elsewhere";
  even.Evict();
  links = even.policy.TakeLinks();
  ASSERT_EQ(links.size(), 1u);
  EXPECT_FALSE(links[0].held);
  odd.policy.Apply(links[0]);
  odd.Evict();
  odd.Evict();
  EXPECT_EQ(odd.policy.held_blocks(), 0u);
  EXPECT_THAT(odd.policy.TakeLinks(), IsEmpty());
}

// Random requests over a growing tree of chains, with layers, reads, pins and removals, against a plain account of what
// is held.
TEST(ChainPolicyTest, HoldsItsPromisesUnderRandomOperations) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const size_t most_ghosts = seed % 3 == 0 ? 0 : 50 * seed;
    Cache cache(most_ghosts);
    std::vector<uint64_t> parents = {0, 0};  // by block, from 1
    std::map<uint64_t, std::set<uint32_t>> held;
    std::set<uint32_t> pinned;
    auto slots = [&] {
      size_t count = 0;
      for (const auto& [block, layers] : held) count += layers.size();
      return count;
    };
    constexpr size_t kMostSlots = 120;
    for (int step = 0; step < 3000; ++step) {
      // A chain that exists, or one that branches off it.
      std::vector<uint64_t> chain;
      for (uint64_t block = 1 + random() % (parents.size() - 1); block != 0; block = parents[block]) {
        chain.insert(chain.begin(), block);
      }
      if (random() % 2 == 0 && chain.size() < 12) {
        parents.push_back(chain.back());
        chain.push_back(parents.size() - 1);
      } else if (random() % 8 == 0) {
        parents.push_back(0);
        chain = {parents.size() - 1};
      }
      cache.Refer(chain);
      for (const uint64_t block : chain) {
        for (uint32_t layer = 0; layer < Cache::kLayers; ++layer) {
          const uint32_t slot = Cache::SlotOf(block, layer);
          if (held.count(block) != 0 && held[block].count(layer) != 0) {
            random() % 4 == 0 ? cache.policy.TouchRows(slot) : cache.policy.Touch(slot);
            continue;
          }
          cache.Store(block, parents[block], layer);
          held[block].insert(layer);
          if (random() % 50 == 0 && pinned.size() < kMostSlots / 4) pinned.insert(slot);
          while (slots() > kMostSlots) {
            const auto victim = cache.policy.Victim([&](uint32_t s) { return pinned.count(s) == 0; });
            ASSERT_TRUE(victim.has_value());
            ASSERT_EQ(pinned.count(*victim), 0u);
            const uint64_t gone = *victim / Cache::kLayers;
            ASSERT_EQ(held[gone].count(*victim % Cache::kLayers), 1u) << "it was not held";
            if (pinned.empty()) {
              for (const auto& [other, layers] : held) ASSERT_NE(parents[other], gone) << "followed by a held block";
            }
            cache.policy.Remove(*victim);
            held[gone].erase(*victim % Cache::kLayers);
            if (held[gone].empty()) held.erase(gone);
          }
        }
      }
      if (random() % 20 == 0) pinned.clear();
      if (random() % 10 == 0 && !held.empty()) {  // a value is found corrupt
        const auto at = std::next(held.begin(), static_cast<long>(random() % held.size()));
        const uint32_t slot = Cache::SlotOf(at->first, *at->second.begin());
        if (at->second.size() == 1)
          held.erase(at);
        else
          at->second.erase(at->second.begin());
        pinned.erase(slot);
        cache.policy.Remove(slot);
      }
      ASSERT_EQ(cache.policy.held_blocks(), held.size());
      ASSERT_LE(cache.policy.ghosts(), most_ghosts);
      ASSERT_LE(cache.policy.known_blocks(), 2 * held.size() + most_ghosts);
    }
  }
}

}  // namespace
}  // namespace tidepool
