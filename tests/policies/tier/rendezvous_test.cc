#include "policies/tier/rendezvous.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/sha256.h"

namespace tidepool {
namespace {

BlockKey Key(int number) {
  const Sha256::Digest digest = Sha256().AddField(std::to_string(number)).Finish();
  BlockKey key;
  std::copy_n(digest.begin(), key.bytes.size(), key.bytes.begin());
  return key;
}

std::vector<PodShare> Pods(int count) {
  std::vector<PodShare> pods;
  for (int i = 0; i < count; ++i) pods.push_back({.seed = PodSeed("tidepool-cache-" + std::to_string(i))});
  return pods;
}

constexpr int kKeys = 30'000;

// Computed apart, by the formulas in the header, in Python.
TEST(RendezvousTest, GoldenVectorsHold) {
  EXPECT_EQ(PodSeed("tidepool-cache-0"), 0xaf2c35cd54fe6c1au);
  EXPECT_EQ(PodSeed(""), 0x141cfc9842c4b0e3u);
  BlockKey key;
  for (size_t i = 0; i < key.bytes.size(); ++i) key.bytes[i] = static_cast<uint8_t>(i * 17);
  EXPECT_EQ(PodScore(key, PodSeed("tidepool-cache-0")), 0x403c39462f1c28bbu);
  EXPECT_EQ(PodScore(key, PodSeed("tidepool-cache-1")), 0x2164413d8353c5aeu);
  EXPECT_EQ(PodScore(BlockKey{}, 0), 0u);
  EXPECT_DOUBLE_EQ(PodGate(key, PodSeed("tidepool-cache-0")), 0.3652746845698801);
  EXPECT_EQ(SessionPlace("default", "s").ToHex(), "cddf8d89986bf71f35d1ed2731e6add2");
}

TEST(RendezvousTest, EveryPodGetsItsShareWithinFewPercent) {
  for (const int count : {2, 3, 7, 16}) {
    std::vector<int> keys(count, 0), second(count, 0);
    const std::vector<PodShare> pods = Pods(count);
    for (int i = 0; i < kKeys; ++i) {
      const PodChoices choices = PodsToWrite(Key(i), pods);
      ++keys[choices.pods[0]];
      ++second[choices.pods[1]];
    }
    const double share = static_cast<double>(kKeys) / count;
    for (int pod = 0; pod < count; ++pod) {
      // Four standard deviations of a binomial count: 3 % at 3 pods, 9 % at 16.
      EXPECT_NEAR(keys[pod], share, 4 * std::sqrt(share)) << pod << " of " << count;
      EXPECT_NEAR(second[pod], share, 4 * std::sqrt(share)) << pod << " of " << count;
    }
  }
}

TEST(RendezvousTest, TheOrderOfPodsDoesNotMatter) {
  const std::vector<PodShare> pods = Pods(5);
  const std::vector<PodShare> reversed(pods.rbegin(), pods.rend());
  for (int i = 0; i < 1000; ++i) {
    const PodChoices one = PodsToWrite(Key(i), pods), other = PodsToWrite(Key(i), reversed);
    ASSERT_EQ(one.count, 4);
    for (int c = 0; c < one.count; ++c) EXPECT_EQ(one.pods[c], 4 - other.pods[c]);
  }
}

TEST(RendezvousTest, WhoJoinsTakesItsShareAndNothingElseMoves) {
  const std::vector<PodShare> before = Pods(4), after = Pods(5);
  int moved = 0;
  for (int i = 0; i < kKeys; ++i) {
    const int was = PodsToWrite(Key(i), before).pods[0], is = PodsToWrite(Key(i), after).pods[0];
    if (was == is) continue;
    EXPECT_EQ(is, 4);
    ++moved;
    // The second choice is where it was: what was stored before is found.
    EXPECT_EQ(PodsToRead(Key(i), after, 1).pods[1], was);
  }
  EXPECT_NEAR(moved, kKeys / 5.0, 4 * std::sqrt(kKeys / 5.0));
}

TEST(RendezvousTest, WhoLeavesGivesItsKeysToAllOthersAndNothingElseMoves) {
  const std::vector<PodShare> before = Pods(4);
  std::vector<PodShare> after = before;
  after.pop_back();
  std::map<int, int> heirs;
  for (int i = 0; i < kKeys; ++i) {
    const PodChoices was = PodsToWrite(Key(i), before);
    const int is = PodsToWrite(Key(i), after).pods[0];
    if (was.pods[0] != 3) {
      EXPECT_EQ(is, was.pods[0]);
    } else {
      EXPECT_EQ(is, was.pods[1]);
      ++heirs[is];
    }
  }
  for (int pod = 0; pod < 3; ++pod) EXPECT_NEAR(heirs[pod], kKeys / 12.0, 4 * std::sqrt(kKeys / 12.0));
}

TEST(RendezvousTest, AGrowingWeightOnlyGainsKeysAndTheyCanBeReadFromWhereTheyWere) {
  std::vector<PodShare> pods = Pods(3);
  std::set<int> taken;
  for (const double weight : {0.0, 0.1, 0.5, 1.0}) {
    pods[2].weight = weight;
    std::set<int> now;
    for (int i = 0; i < kKeys; ++i) {
      if (PodsToWrite(Key(i), pods).pods[0] != 2) continue;
      now.insert(i);
      EXPECT_TRUE(PodsToRead(Key(i), pods, 1).Contains(PodsToWrite(Key(i), Pods(2)).pods[0]));
    }
    for (const int key : taken) EXPECT_TRUE(now.contains(key));
    EXPECT_NEAR(static_cast<double>(now.size()), weight * kKeys / 3, 4 * std::sqrt(kKeys / 3.0) + 1);
    taken = now;
  }
}

TEST(RendezvousTest, APodThatIsComingBackIsAskedForItsOldKeysWhateverItsWeight) {
  std::vector<PodShare> pods = Pods(3);
  for (int i = 0; i < 1000; ++i) {
    pods[1].weight = 1;
    const bool its = PodsToWrite(Key(i), pods).pods[0] == 1;
    pods[1].weight = 0;
    EXPECT_TRUE(!its || PodsToRead(Key(i), pods, 1).Contains(1));
  }
}

TEST(RendezvousTest, APodThatTakesNothingNewIsReadAndNotWritten) {
  std::vector<PodShare> pods = Pods(3);
  pods[0].takes_new = false;
  bool read = false;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(PodsToWrite(Key(i), pods).Contains(0));
    read = read || PodsToRead(Key(i), pods, 2).Contains(0);
  }
  EXPECT_TRUE(read);
  for (PodShare& pod : pods) pod.takes_new = false;
  EXPECT_EQ(PodsToWrite(Key(1), pods).count, 0);
  EXPECT_EQ(PodsToRead(Key(1), pods, 1).count, 2);
}

TEST(RendezvousTest, WhatWasWrittenWhileAnyOnePodWasAwayIsLookedForWhereItIs) {
  const std::vector<PodShare> all = Pods(5);
  for (size_t away = 0; away < all.size(); ++away) {
    std::vector<PodShare> others = all;
    others.erase(others.begin() + static_cast<int64_t>(away));
    for (int i = 0; i < 1000; ++i) {
      const PodChoices written = PodsToWrite(Key(i), others);
      for (const int copies : {1, 2}) {
        const PodChoices read = PodsToRead(Key(i), all, copies);
        for (int c = 0; c < copies; ++c) EXPECT_TRUE(read.Contains(written.pods[c] + (written.pods[c] >= away)));
      }
    }
  }
}

TEST(RendezvousTest, TwoCopiesGoToTwoPodsAndBothAreRead) {
  const std::vector<PodShare> pods = Pods(3);
  for (int i = 0; i < 1000; ++i) {
    const PodChoices written = PodsToWrite(Key(i), pods), read = PodsToRead(Key(i), pods, 2);
    EXPECT_NE(written.pods[0], written.pods[1]);
    EXPECT_TRUE(read.Contains(written.pods[0]) && read.Contains(written.pods[1]));
  }
  EXPECT_EQ(PodsToRead(Key(1), Pods(1), 2).count, 1);
  EXPECT_EQ(PodsToRead(Key(1), {}, 2).count, 0);
}

TEST(RendezvousTest, ASessionsPlaceDependsOnTenantAndIdApart) {
  EXPECT_NE(SessionPlace("a", "bc"), SessionPlace("ab", "c"));
  EXPECT_EQ(SessionPlace("a", "b"), SessionPlace("a", "b"));
}

}  // namespace
}  // namespace tidepool
