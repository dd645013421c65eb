#include "cacheservice/tiers/sieve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <optional>
#include <random>
#include <set>
#include <vector>

namespace tidepool {
namespace {

using testing::ElementsAre;

bool Any(uint32_t) { return true; }

// Evicts until nothing is held.
std::vector<uint32_t> LeavingOrder(Sieve& sieve) {
  std::vector<uint32_t> order;
  for (std::optional<uint32_t> victim = sieve.Victim(Any); victim.has_value(); victim = sieve.Victim(Any)) {
    order.push_back(*victim);
    sieve.Remove(*victim);
  }
  return order;
}

TEST(SieveTest, AnEmptyPolicyHasNoVictim) { EXPECT_EQ(Sieve().Victim(Any), std::nullopt); }

TEST(SieveTest, WhatWasNeverReadLeavesInTheOrderOfArrival) {
  Sieve sieve;
  for (const uint32_t slot : {4, 0, 2, 1, 3}) sieve.Insert(slot, {});
  EXPECT_THAT(LeavingOrder(sieve), ElementsAre(4, 0, 2, 1, 3));
}

// Worked by hand: slots 0 to 6 held, 0, 1 and 6 read; then two evictions with an arrival after each.
TEST(SieveTest, TheHandSparesWhatWasReadOnceAndGoesOnWhereItStopped) {
  Sieve sieve;
  for (uint32_t slot = 0; slot < 7; ++slot) sieve.Insert(slot, {});
  for (const uint32_t slot : {0, 1, 6}) sieve.Touch(slot);
  EXPECT_EQ(sieve.Victim(Any), 2u) << "0 and 1 were read";
  sieve.Remove(2);
  sieve.Insert(7, {});
  sieve.Touch(0);
  EXPECT_EQ(sieve.Victim(Any), 3u) << "the hand does not go back to 0 and 1";
  sieve.Remove(3);
  sieve.Insert(8, {});
  EXPECT_EQ(sieve.Victim(Any), 4u);
  sieve.Remove(4);
  EXPECT_EQ(sieve.Victim(Any), 5u);
  sieve.Remove(5);
  EXPECT_EQ(sieve.Victim(Any), 7u) << "6 was read";
  sieve.Remove(7);
  EXPECT_EQ(sieve.Victim(Any), 8u);
  sieve.Remove(8);
  EXPECT_EQ(sieve.Victim(Any), 1u) << "past the newest the hand begins at the oldest; 0 was read again";
}

TEST(SieveTest, AskingAgainGivesTheSameVictimUntilItIsRemoved) {
  Sieve sieve;
  for (uint32_t slot = 0; slot < 3; ++slot) sieve.Insert(slot, {});
  sieve.Touch(0);
  EXPECT_EQ(sieve.Victim(Any), 1u);
  EXPECT_EQ(sieve.Victim(Any), 1u);
}

TEST(SieveTest, WhatMayNotLeaveIsPassedOver) {
  Sieve sieve;
  for (uint32_t slot = 0; slot < 4; ++slot) sieve.Insert(slot, {});
  EXPECT_EQ(sieve.Victim([](uint32_t slot) { return slot == 2; }), 2u);
  EXPECT_EQ(sieve.Victim([](uint32_t slot) { return slot == 1; }), 1u) << "also behind the hand";
  EXPECT_EQ(sieve.Victim([](uint32_t) { return false; }), std::nullopt);
}

TEST(SieveTest, EvenWhenAllWereReadOneLeaves) {
  Sieve sieve;
  for (uint32_t slot = 0; slot < 5; ++slot) sieve.Insert(slot, {});
  for (uint32_t slot = 0; slot < 5; ++slot) sieve.Touch(slot);
  EXPECT_EQ(sieve.Victim([](uint32_t slot) { return slot == 3; }), 3u);
}

// SIEVE again, as the paper's pseudo code over a list.
class ListSieve {
 public:
  void Insert(uint32_t slot) { nodes_.push_back({slot, false}); }
  void Touch(uint32_t slot) { Find(slot)->visited = true; }
  void Remove(uint32_t slot) {
    const auto node = Find(slot);
    if (hand_ == node) ++hand_;
    nodes_.erase(node);
  }
  std::optional<uint32_t> Victim(const std::set<uint32_t>& pinned) {
    for (size_t steps = 0; steps < 2 * nodes_.size(); ++steps, ++hand_) {
      if (hand_ == nodes_.end()) hand_ = nodes_.begin();
      if (!hand_->visited && !pinned.contains(hand_->slot)) return hand_->slot;
      hand_->visited = false;
    }
    return std::nullopt;
  }

 private:
  struct Node {
    uint32_t slot;
    bool visited;
  };
  std::list<Node>::iterator Find(uint32_t slot) {
    return std::find_if(nodes_.begin(), nodes_.end(), [slot](const Node& node) { return node.slot == slot; });
  }
  std::list<Node> nodes_;  // oldest first
  std::list<Node>::iterator hand_ = nodes_.end();
};

TEST(SieveTest, RandomSequencesAgreeWithTheListOfThePaper) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    Sieve sieve;
    ListSieve model;
    std::set<uint32_t> held, pinned;
    for (int step = 0; step < 2000; ++step) {
      const uint32_t slot = random() % 24;
      if (!held.contains(slot)) {
        sieve.Insert(slot, {}), model.Insert(slot), held.insert(slot);
        continue;
      }
      switch (random() % 6) {
        case 0: sieve.Remove(slot), model.Remove(slot), held.erase(slot), pinned.erase(slot); break;
        case 1: pinned.insert(slot); break;
        case 2: pinned.erase(slot); break;
        case 3: {
          const auto victim = sieve.Victim([&pinned](uint32_t s) { return !pinned.contains(s); });
          ASSERT_EQ(victim, model.Victim(pinned)) << "seed " << seed << " step " << step;
          if (victim.has_value()) sieve.Remove(*victim), model.Remove(*victim), held.erase(*victim);
          break;
        }
        default: sieve.Touch(slot), model.Touch(slot); break;
      }
    }
  }
}

}  // namespace
}  // namespace tidepool
