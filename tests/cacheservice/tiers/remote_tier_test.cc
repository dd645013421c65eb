#include "cacheservice/tiers/remote_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "cacheservice/tiers/remote_record.h"
#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/cacheservice/tiers/wide_blocks.h"
#include "tests/support/eventually.h"

namespace tidepool {
namespace {

using test::Eventually;
using test::RedisServer;
using test::WideId;
using test::WideValue;
using testing::HasSubstr;
using Breaker = RemoteTierStats::Breaker;

constexpr int kManyHeads = 40;  // 1.3 MB: three pieces

RemoteTierOptions Options(const std::string& url) {
  RemoteTierOptions options;
  options.url = url;
  options.timeout = absl::Seconds(30);  // sanitizers are slow; nobody here waits for it
  options.breaker.first_pause = absl::Milliseconds(10);
  options.breaker.longest_pause = absl::Milliseconds(20);
  return options;
}

DiskPut Put(int number, int kv_heads = 8) {
  return {.id = WideId(number), .value = std::make_shared<const std::string>(WideValue(number, kv_heads))};
}

absl::Status Store(RemoteTier* tier, const DiskPut& put) { return tier->Put({&put, 1})[0]; }

// The value that is there, or null.
BlockValue Get(RemoteTier* tier, int number) {
  const BlockId id = WideId(number);
  return tier->Get({&id, 1}, absl::InfiniteFuture()).values[0];
}

class RemoteTierTest : public testing::Test {
 protected:
  explicit RemoteTierTest(RedisServer::Options options = {}) : server_(std::move(options)) {}
  std::unique_ptr<RemoteTier> Open() { return *RemoteTier::Open(Options(server_.url())); }
  std::string PieceKey(int number, int kv_heads, uint32_t piece) {
    const std::string record = server_.Call({"GET", RemoteHeadKey(WideId(number))}).text;
    return RemotePieceKey(WideId(number), ParseRemoteHead(WideId(number), record)->tag, piece);
  }

  RedisServer server_;
};

TEST_F(RemoteTierTest, ValuesOfOnePieceAndOfSeveralComeBackAsTheyWere) {
  auto tier = Open();
  const std::vector<DiskPut> puts = {Put(1), Put(2, kManyHeads), Put(3, 1), Put(4, 200)};
  for (const absl::Status& status : tier->Put(puts)) EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(server_.Call({"DBSIZE"}).integer, 1 + 3 + 1 + 13);
  auto other = Open();  // another process would see the same
  std::vector<BlockId> ids = {WideId(9)};
  for (const DiskPut& put : puts) ids.push_back(put.id);
  const RemoteTier::Found found = other->Get(ids, absl::InfiniteFuture());
  EXPECT_TRUE(found.complete);
  EXPECT_EQ(found.values[0], nullptr);
  for (size_t i = 0; i < puts.size(); ++i) {
    ASSERT_NE(found.values[i + 1], nullptr) << i;
    EXPECT_TRUE(*found.values[i + 1] == *puts[i].value) << i;
  }
  const RemoteTierStats stats = other->Stats();
  EXPECT_EQ(stats.hits, 4u);
  EXPECT_EQ(stats.absent, 1u);
  EXPECT_EQ(stats.breaker, Breaker::kClosed);
  EXPECT_EQ(tier->Stats().puts, 4u);
}

TEST_F(RemoteTierTest, WhatIsThereIsNotSentAgain) {
  auto tier = Open();
  const std::vector<DiskPut> puts = {Put(1), Put(2, kManyHeads)};
  tier->Put(puts);
  tier->Put(puts);
  RemoteTierStats stats = tier->Stats();
  EXPECT_EQ(stats.puts, 2u);
  EXPECT_EQ(stats.repeated_puts, 2u);
  server_.Call({"DEL", PieceKey(2, kManyHeads, 2)});
  tier->Put(puts);
  stats = tier->Stats();
  EXPECT_EQ(stats.puts, 3u) << "a part of it was missing";
  EXPECT_EQ(stats.repeated_puts, 3u);
  EXPECT_EQ(*Get(tier.get(), 2), *puts[1].value);
}

TEST_F(RemoteTierTest, AMissingPieceIsAMiss) {
  auto tier = Open();
  ASSERT_TRUE(Store(tier.get(), Put(2, kManyHeads)).ok());
  server_.Call({"DEL", PieceKey(2, kManyHeads, 1)});
  EXPECT_EQ(Get(tier.get(), 2), nullptr);
  EXPECT_EQ(tier->Stats().incomplete, 1u);
  ASSERT_TRUE(Store(tier.get(), Put(2, kManyHeads)).ok());
  server_.Call({"DEL", RemoteHeadKey(WideId(2))});
  EXPECT_EQ(Get(tier.get(), 2), nullptr);
  EXPECT_EQ(tier->Stats().absent, 1u);
}

TEST_F(RemoteTierTest, AnyFlippedBitIsAMissThatIsCountedAndTheValueCanBeStoredAgain) {
  auto tier = Open();
  const DiskPut put = Put(2, kManyHeads);
  ASSERT_TRUE(Store(tier.get(), put).ok());
  const std::string keys[] = {RemoteHeadKey(put.id), PieceKey(2, kManyHeads, 1), PieceKey(2, kManyHeads, 2)};
  std::mt19937 random(5);
  uint64_t corrupt = 0;
  for (int i = 0; i < 60; ++i) {
    const std::string& key = keys[i % 3];
    const std::string was = server_.Call({"GET", key}).text;
    std::string damaged = was;
    // Names and sizes of the head often enough; all of the rest is the value.
    const size_t at = i % 3 == 0 && i % 2 == 0 ? i / 6 * 4 % kRemoteHeadBytes : random() % was.size();
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
    server_.Call({"SET", key, damaged});
    EXPECT_EQ(Get(tier.get(), 2), nullptr) << "byte " << at << " of " << key;
    const RemoteTierStats stats = tier->Stats();
    // A tag that is damaged leads to pieces that are not there.
    EXPECT_EQ(stats.corrupt + stats.incomplete, ++corrupt);
    server_.Call({"DEL", key});
    ASSERT_TRUE(Store(tier.get(), put).ok());
    const BlockValue again = Get(tier.get(), 2);
    ASSERT_NE(again, nullptr);
    EXPECT_TRUE(*again == *put.value);
  }
  EXPECT_GE(tier->Stats().corrupt, 50u);
}

TEST_F(RemoteTierTest, ADamagedHeadIsDeleted) {
  auto tier = Open();
  ASSERT_TRUE(Store(tier.get(), Put(1)).ok());
  server_.Call({"SETRANGE", RemoteHeadKey(WideId(1)), "2000", "damage"});
  EXPECT_EQ(Get(tier.get(), 1), nullptr);
  EXPECT_EQ(tier->Stats().corrupt, 1u);
  EXPECT_EQ(server_.Call({"DBSIZE"}).integer, 0);
}

TEST_F(RemoteTierTest, AnotherBlocksValueUnderThisBlocksKeyIsAMiss) {
  auto tier = Open();
  ASSERT_TRUE(Store(tier.get(), Put(1)).ok());
  server_.Call({"COPY", RemoteHeadKey(WideId(1)), RemoteHeadKey(WideId(4))});  // the same layer
  EXPECT_EQ(Get(tier.get(), 4), nullptr);
  EXPECT_EQ(tier->Stats().corrupt, 1u);
}

TEST_F(RemoteTierTest, ALookupCountsLeadingBlocksWithAllWantedLayers) {
  auto tier = Open();
  std::vector<RemoteTier::Wanted> wanted;
  for (int block = 0; block < 600; ++block) {  // more than one round
    wanted.push_back({.key = test::NumberedKey(block), .layers = {}});
    for (int layer = 0; layer < 3; ++layer) {
      if (block != 7) wanted.back().layers.push_back(layer);
      server_.Call({"SET", RemoteHeadKey({wanted.back().key, layer}), "x"});
    }
    if (block == 7) wanted.back().layers = {1};
  }
  EXPECT_EQ(tier->CountLeading(wanted, absl::InfiniteFuture()), 600);
  server_.Call({"DEL", RemoteHeadKey({wanted[500].key, 2})});
  server_.Call({"DEL", RemoteHeadKey({wanted[7].key, 0})});
  EXPECT_EQ(tier->CountLeading(wanted, absl::InfiniteFuture()), 500);
  server_.Call({"DEL", RemoteHeadKey({wanted[7].key, 1})});
  EXPECT_EQ(tier->CountLeading(wanted, absl::InfiniteFuture()), 7);
  EXPECT_EQ(tier->CountLeading({}, absl::InfiniteFuture()), 0);
  EXPECT_EQ(tier->CountLeading(wanted, absl::InfinitePast()), 0);
}

TEST_F(RemoteTierTest, ValuesExpireWhenToldAndAPutMakesThemYoungAgain) {
  RemoteTierOptions options = Options(server_.url());
  options.ttl = absl::Hours(1);
  auto tier = *RemoteTier::Open(options);
  const DiskPut put = Put(2, kManyHeads);
  ASSERT_TRUE(Store(tier.get(), put).ok());
  const std::string keys[] = {RemoteHeadKey(put.id), PieceKey(2, kManyHeads, 1), PieceKey(2, kManyHeads, 2)};
  for (const std::string& key : keys) {
    const int64_t left = server_.Call({"TTL", key}).integer;
    EXPECT_TRUE(left > 3000 && left <= 3600) << left;
    server_.Call({"EXPIRE", key, "100"});
  }
  ASSERT_TRUE(Store(tier.get(), put).ok());
  EXPECT_EQ(tier->Stats().repeated_puts, 1u);
  for (const std::string& key : keys) EXPECT_GT(server_.Call({"TTL", key}).integer, 3000);
  for (const std::string& key : keys) server_.Call({"PEXPIRE", key, "0"});
  EXPECT_EQ(Get(tier.get(), 2), nullptr);
}

TEST_F(RemoteTierTest, AnEngineThatTakesNoValuesIsStillRead) {
  auto tier = Open();
  ASSERT_TRUE(Store(tier.get(), Put(1)).ok());
  server_.Call({"CONFIG", "SET", "maxmemory", "1"});  // with no eviction
  const absl::Status refused = Store(tier.get(), Put(2));
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("OOM"));
  EXPECT_GT(tier->WritesAllowedAt(), absl::InfinitePast());
  RemoteTierStats stats = tier->Stats();
  EXPECT_EQ(stats.breaker, Breaker::kClosed);
  EXPECT_THAT(stats.last_failure, HasSubstr("OOM"));
  EXPECT_NE(Get(tier.get(), 1), nullptr);
  server_.Call({"CONFIG", "SET", "maxmemory", "0"});
  EXPECT_TRUE(Eventually([&] { return Store(tier.get(), Put(2)).ok(); }));
  EXPECT_NE(Get(tier.get(), 2), nullptr);
}

TEST_F(RemoteTierTest, WhenTheServerIsGoneTheBreakerOpensAndItIsUsedAgainWhenItIsBack) {
  auto tier = Open();
  ASSERT_TRUE(Store(tier.get(), Put(1)).ok());
  server_.Kill();
  ASSERT_TRUE(Eventually([&] {
    EXPECT_EQ(Get(tier.get(), 1), nullptr);
    return tier->Stats().breaker == Breaker::kOpen;
  }));
  RemoteTierStats stats = tier->Stats();
  EXPECT_GE(stats.failed, 3u);
  EXPECT_EQ(stats.breaker_opened, 1u);
  EXPECT_THAT(stats.last_failure, HasSubstr(server_.endpoint().ToString()));
  ASSERT_TRUE(Eventually([&] {  // most of the time nothing is even tried
    const BlockId id = WideId(1);
    EXPECT_FALSE(tier->Get({&id, 1}, absl::InfiniteFuture()).complete);
    return tier->Stats().unavailable > 0;
  }));
  EXPECT_FALSE(Store(tier.get(), Put(1)).ok());
  server_.Start();
  ASSERT_TRUE(Eventually([&] { return Store(tier.get(), Put(1)).ok(); }));
  EXPECT_TRUE(Eventually([&] { return Get(tier.get(), 1) != nullptr; }));
  EXPECT_EQ(tier->Stats().breaker, Breaker::kClosed);
}

TEST_F(RemoteTierTest, AServerThatHangsCostsTheDeadlineUntilTheBreakerOpens) {
  auto tier = Open();
  ASSERT_TRUE(Store(tier.get(), Put(1)).ok());
  server_.Pause();
  const BlockId id = WideId(1);
  ASSERT_TRUE(Eventually([&] {
    EXPECT_EQ(tier->Get({&id, 1}, absl::Now() + absl::Milliseconds(20)).values[0], nullptr);
    return tier->Stats().breaker == Breaker::kOpen;
  }));
  server_.Resume();
  EXPECT_TRUE(Eventually([&] { return Get(tier.get(), 1) != nullptr; }));
}

TEST_F(RemoteTierTest, ADeadlineThatHasPassedIsAMissAndSaysNothingAboutTheEngine) {
  auto tier = Open();
  ASSERT_TRUE(Store(tier.get(), Put(1)).ok());
  const BlockId id = WideId(1);
  for (int i = 0; i < 10; ++i) {
    const RemoteTier::Found found = tier->Get({&id, 1}, absl::InfinitePast());
    EXPECT_EQ(found.values[0], nullptr);
    EXPECT_FALSE(found.complete);
  }
  EXPECT_EQ(tier->Stats().breaker, Breaker::kClosed);
}

TEST(RemoteTierLoginTest, AWrongPasswordOpensTheBreakerAtOnceAndSaysSo) {
  RedisServer server({.arguments = {"--requirepass", "secret"}, .login = {.password = "secret"}});
  RemoteTierOptions options = Options("redis://:hunter2@" + server.endpoint().ToString());
  options.breaker.first_pause = options.breaker.longest_pause = absl::Minutes(5);
  auto tier = *RemoteTier::Open(options);
  EXPECT_EQ(Get(tier.get(), 1), nullptr);
  const RemoteTierStats stats = tier->Stats();
  EXPECT_EQ(stats.breaker, Breaker::kOpen);
  EXPECT_GT(stats.retry_seconds, 100);
  EXPECT_THAT(stats.last_failure, HasSubstr("AUTH is refused: WRONGPASS"));
  options.password = "secret";  // takes the place of the address's
  tier = *RemoteTier::Open(options);
  EXPECT_TRUE(Store(tier.get(), Put(1)).ok());
}

TEST(RemoteTierLoginTest, ThePermissionsThatOperationsAskForAreEnough) {
  RedisServer server;
  server.Call({"ACL", "SETUSER", "tidepool", "on", ">pw", "~tidepool:*", "+get", "+set", "+del", "+exists", "+touch",
               "+pexpire", "+cluster|slots", "+asking"});
  for (const absl::Duration ttl : {absl::ZeroDuration(), absl::Hours(1)}) {
    RemoteTierOptions options = Options("redis://tidepool:pw@" + server.endpoint().ToString());
    options.ttl = ttl;
    auto tier = *RemoteTier::Open(options);
    ASSERT_TRUE(Store(tier.get(), Put(1)).ok());
    ASSERT_TRUE(Store(tier.get(), Put(1)).ok());
    EXPECT_NE(Get(tier.get(), 1), nullptr);
    const RemoteTier::Wanted wanted = {.key = WideId(1).key, .layers = {WideId(1).layer}};
    EXPECT_EQ(tier->CountLeading({&wanted, 1}, absl::InfiniteFuture()), 1);
    server.Call({"SET", RemoteHeadKey(WideId(2)), "damage"});
    EXPECT_EQ(Get(tier.get(), 2), nullptr);
    EXPECT_EQ(tier->Stats().last_failure, "");
    EXPECT_EQ(server.Call({"DBSIZE"}).integer, 1);
  }
}

TEST(RemoteTierOptionsTest, MistakesAreNamed) {
  RemoteTierOptions good = Options("rediss://h");
  ASSERT_TRUE(good.Validate().ok());
  ASSERT_TRUE(RemoteTierOptions().Validate().ok()) << "none at all";
  const auto message = [](const RemoteTierOptions& options) {
    EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
    return std::string(options.Validate().message());
  };
  RemoteTierOptions options = good;
  options.url = "http://h";
  EXPECT_THAT(message(options), HasSubstr("remote_tier: it does not begin with redis://"));
  options.url = "redis://10.0.0.1";
  EXPECT_THAT(message(options), HasSubstr("needs --insecure"));
  options.insecure = true;
  EXPECT_TRUE(options.Validate().ok());
  options.ca_file = "ca.pem";
  EXPECT_THAT(message(options), HasSubstr("not rediss://"));
  options = good;
  options.piece_bytes = 1;
  EXPECT_THAT(message(options), HasSubstr("piece_bytes: 1 is not in 65536 to 1048576"));
  options = good;
  options.ttl = absl::Milliseconds(1);
  EXPECT_THAT(message(options), HasSubstr("remote_tier_ttl: 1ms is not in 1s to "));
  options = good;
  options.timeout = absl::Hours(1);
  EXPECT_THAT(message(options), HasSubstr("remote_tier_timeout: 1h is not in 1ms to 1m"));
  options = good;
  options.readers = 0;
  EXPECT_THAT(message(options), HasSubstr("readers: 0 is not in 1 to 64"));
  options = good;
  options.breaker.first_pause = absl::Hours(2);
  EXPECT_THAT(message(options), HasSubstr("first_pause"));
  options = good;
  options.ca_file = "/no/such/file";
  const auto tier = RemoteTier::Open(options);
  EXPECT_EQ(tier.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tier.status().message()), HasSubstr("/no/such/file"));
}

}  // namespace
}  // namespace tidepool
