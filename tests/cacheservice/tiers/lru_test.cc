#include "cacheservice/tiers/lru.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

namespace tidepool {
namespace {

const auto kAny = [](uint32_t) { return true; };

TEST(LruTest, TheLeastRecentlyReadLeavesFirst) {
  Lru lru;
  for (uint32_t slot = 0; slot < 3; ++slot) lru.Insert(slot, {});
  lru.Touch(0);
  EXPECT_EQ(lru.Victim(kAny), 1u);
  EXPECT_EQ(lru.Victim([](uint32_t slot) { return slot != 1; }), 2u) << "the next of those that may leave";
  EXPECT_EQ(lru.Victim([](uint32_t) { return false; }), std::nullopt);
  EXPECT_EQ(Lru().Victim(kAny), std::nullopt);
}

TEST(LruTest, AgreesWithAQueueUnderRandomOperations) {
  std::mt19937 random(1);
  Lru lru;
  std::deque<uint32_t> queue;  // oldest first
  for (int step = 0; step < 20000; ++step) {
    const uint32_t slot = random() % 50;
    const auto at = std::find(queue.begin(), queue.end(), slot);
    if (at == queue.end()) {
      lru.Insert(slot, {});
      queue.push_back(slot);
    } else if (random() % 2 == 0) {
      lru.Touch(slot);
      queue.erase(at);
      queue.push_back(slot);
    } else {
      lru.Remove(slot);
      queue.erase(at);
    }
    const std::optional<uint32_t> victim = lru.Victim(kAny);
    ASSERT_EQ(victim.has_value(), !queue.empty());
    if (victim.has_value()) {
      ASSERT_EQ(*victim, queue.front());
    }
  }
}

}  // namespace
}  // namespace tidepool
