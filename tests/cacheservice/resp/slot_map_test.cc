#include "cacheservice/resp/slot_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "cacheservice/resp/hash_slot.h"

namespace tidepool {
namespace {

const RespEndpoint kAsked = {.host = "10.9.9.9", .port = 7000};

RespReply Reply(const std::string& bytes) {
  RespReader reader;
  EXPECT_TRUE(reader.Feed(bytes).ok());
  auto reply = reader.Next();
  EXPECT_TRUE(reply.ok() && reply->has_value());
  return **std::move(reply);
}

// As Redis 7 answers: slots 0 to 5460 with a replica and metadata, 5461 to 16382 of a node without a host; 16383
// nobody's.
std::string Slots() {
  return "*2\r\n"
         "*4\r\n:0\r\n:5460\r\n"
         "*4\r\n$8\r\n10.0.0.1\r\n:6379\r\n$2\r\nid\r\n*2\r\n$8\r\nhostname\r\n$1\r\nh\r\n"
         "*3\r\n$8\r\n10.0.0.2\r\n:6379\r\n$2\r\nid\r\n"
         "*3\r\n:5461\r\n:16382\r\n*3\r\n$0\r\n\r\n:6380\r\n$2\r\nid\r\n";
}

TEST(SlotMapTest, MastersOfTheReplyOwnTheirSlots) {
  const auto map = SlotMap::Parse(Reply(Slots()), kAsked);
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_TRUE(map->is_cluster());
  EXPECT_EQ(*map->Owner(0), (RespEndpoint{"10.0.0.1", 6379}));
  EXPECT_EQ(*map->Owner(5460), (RespEndpoint{"10.0.0.1", 6379}));
  EXPECT_EQ(*map->Owner(5461), (RespEndpoint{"10.9.9.9", 6380})) << "no host: the one that was asked";
  EXPECT_EQ(map->Owner(16383), nullptr);
  EXPECT_EQ(map->endpoints().size(), 2u);
}

TEST(SlotMapTest, ARedirectionMovesOneSlot) {
  auto map = *SlotMap::Parse(Reply(Slots()), kAsked);
  map.SetOwner(16383, {"10.0.0.3", 1});
  map.SetOwner(7, {"10.0.0.3", 1});
  EXPECT_EQ(map.Owner(16383)->host, "10.0.0.3");
  EXPECT_EQ(map.Owner(7)->host, "10.0.0.3");
  EXPECT_EQ(map.Owner(6)->host, "10.0.0.1");
  EXPECT_EQ(map.endpoints().size(), 3u);
}

TEST(SlotMapTest, OneServerOwnsAllSlots) {
  const SlotMap map = SlotMap::Single(kAsked);
  EXPECT_FALSE(map.is_cluster());
  EXPECT_EQ(*map.Owner(0), kAsked);
  EXPECT_EQ(*map.Owner(kHashSlots - 1), kAsked);
}

TEST(SlotMapTest, OtherRepliesAreRefused) {
  const char* const bad[] = {"+OK\r\n",
                             "*1\r\n:1\r\n",
                             "*1\r\n*2\r\n:0\r\n:1\r\n",
                             "*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$1\r\nh\r\n:1\r\n",
                             "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\nh\r\n:1\r\n",
                             "*1\r\n*3\r\n:-1\r\n:4\r\n*2\r\n$1\r\nh\r\n:1\r\n",
                             "*1\r\n*3\r\n:0\r\n:4\r\n*2\r\n$1\r\nh\r\n:0\r\n",
                             "*1\r\n*3\r\n:0\r\n:4\r\n*1\r\n$1\r\nh\r\n",
                             "*1\r\n*3\r\n$1\r\n0\r\n:4\r\n*2\r\n$1\r\nh\r\n:1\r\n"};
  for (const char* bytes : bad) {
    EXPECT_EQ(SlotMap::Parse(Reply(bytes), kAsked).status().code(), absl::StatusCode::kDataLoss) << bytes;
  }
  EXPECT_EQ(SlotMap::Parse(Reply("*0\r\n"), kAsked).status().code(), absl::StatusCode::kUnavailable);
}

TEST(RedirectionTest, SlotAndServerOfMovedAndAsk) {
  auto redirection = RedirectionOf(Reply("-MOVED 3999 127.0.0.1:6381\r\n"), kAsked);
  ASSERT_TRUE(redirection.has_value());
  EXPECT_FALSE(redirection->ask);
  EXPECT_EQ(redirection->slot, 3999);
  EXPECT_EQ(redirection->endpoint, (RespEndpoint{"127.0.0.1", 6381}));
  redirection = RedirectionOf(Reply("-ASK 0 :6381\r\n"), kAsked);
  ASSERT_TRUE(redirection.has_value());
  EXPECT_TRUE(redirection->ask);
  EXPECT_EQ(redirection->endpoint, (RespEndpoint{"10.9.9.9", 6381})) << "no host: the one that was asked";
  redirection = RedirectionOf(Reply("-MOVED 1 fe80::1:6381\r\n"), kAsked);
  ASSERT_TRUE(redirection.has_value());
  EXPECT_EQ(redirection->endpoint, (RespEndpoint{"fe80::1", 6381}));
}

TEST(RedirectionTest, WhatCannotBeFollowedIsNone) {
  for (const char* bytes : {"-MOVED\r\n", "-MOVED 1\r\n", "-MOVED 16384 h:1\r\n", "-MOVED x h:1\r\n", "-MOVED 1 h\r\n",
                            "-MOVED 1 h:0\r\n", "-MOVED 1 ?:1\r\n", "-ERR 1 h:1\r\n", "+MOVED 1 h:1\r\n"}) {
    EXPECT_FALSE(RedirectionOf(Reply(bytes), kAsked).has_value()) << bytes;
  }
}

}  // namespace
}  // namespace tidepool
