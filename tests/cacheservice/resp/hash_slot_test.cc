#include "cacheservice/resp/hash_slot.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/cacheservice/resp/redis_servers.h"

namespace tidepool {
namespace {

TEST(HashSlotTest, TheChecksumOfTheStandardsExample) {
  EXPECT_EQ(Crc16("123456789"), 0x31c3);  // CRC-16/XMODEM's check value
  EXPECT_EQ(Crc16(""), 0);
}

TEST(HashSlotTest, OnlyTheFirstBracePairThatHoldsSomethingIsATag) {
  EXPECT_EQ(HashSlot("{user1000}.following"), HashSlot("{user1000}.followers"));
  EXPECT_EQ(HashSlot("{user1000}.following"), HashSlot("user1000"));
  EXPECT_EQ(HashSlot("foo{}{bar}"), Crc16("foo{}{bar}") % kHashSlots) << "an empty tag is none";
  EXPECT_EQ(HashSlot("foo{{bar}}zap"), HashSlot("{bar"));
  EXPECT_EQ(HashSlot("foo{bar}{zap}"), HashSlot("bar"));
  EXPECT_EQ(HashSlot("foo{bar"), Crc16("foo{bar") % kHashSlots) << "no closing brace";
  EXPECT_EQ(HashSlot("foo}bar{"), Crc16("foo}bar{") % kHashSlots);
}

TEST(HashSlotTest, AServerSaysTheSame) {
  test::RedisServer server({.cluster = true});
  std::string key;
  for (int i = 0; i < 300; ++i) {
    key.push_back(static_cast<char>("{}{}ab\xff\0c"[i * 7 % 9]));
    if (i % 40 == 39) key.clear();
    EXPECT_EQ(server.Call({"CLUSTER", "KEYSLOT", key}).integer, HashSlot(key)) << key;
  }
}

}  // namespace
}  // namespace tidepool
