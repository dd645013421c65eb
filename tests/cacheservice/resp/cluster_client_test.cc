#include "cacheservice/resp/cluster_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "cacheservice/resp/hash_slot.h"
#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/cacheservice/resp/strange_server.h"
#include "tests/support/eventually.h"

namespace tidepool {
namespace {

using test::Eventually;
using test::RedisCluster;
using test::RedisServer;
using test::StrangeServer;
using testing::HasSubstr;
using Type = RespReply::Type;

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

ClusterClientOptions Options(std::vector<RespEndpoint> seeds) {
  ClusterClientOptions options;
  options.seeds = std::move(seeds);
  options.connect_timeout = absl::Seconds(5);  // sanitizers are slow; nobody here waits for it
  return options;
}

// One command about one key.
ClusterClient::Request About(std::string_view key, std::vector<std::string_view> arguments) {
  return {.slot = HashSlot(key), .arguments = std::move(arguments)};
}

absl::StatusOr<RespReply> Ask(ClusterClient* client, const ClusterClient::Request& request,
                              absl::Time deadline = Soon()) {
  return std::move(client->Run({&request, 1}, deadline)[0]);
}

void SetMany(ClusterClient* client, int count) {
  std::vector<std::string> keys, values;
  for (int i = 0; i < count; ++i) {
    keys.push_back("key" + std::to_string(i));
    values.push_back("value" + std::to_string(i));
  }
  std::vector<ClusterClient::Request> requests;
  for (int i = 0; i < count; ++i) requests.push_back(About(keys[i], {"SET", keys[i], values[i]}));
  for (const auto& reply : client->Run(requests, Soon()))
    ASSERT_TRUE(reply.ok() && reply->text == "OK") << reply.status();
}

// How many are there; one that is there has its value.
int GetMany(ClusterClient* client, int count) {
  std::vector<std::string> keys;
  for (int i = 0; i < count; ++i) keys.push_back("key" + std::to_string(i));
  std::vector<ClusterClient::Request> requests;
  for (const std::string& key : keys) requests.push_back(About(key, {"GET", key}));
  const auto replies = client->Run(requests, Soon());
  int found = 0;
  for (int i = 0; i < count; ++i) {
    if (!replies[i].ok() || !replies[i]->is(Type::kString)) continue;
    EXPECT_EQ(replies[i]->text, "value" + std::to_string(i));
    ++found;
  }
  return found;
}

TEST(ClusterClientTest, OneServerByItselfIsEnough) {
  RedisServer server;
  ClusterClient client(Options({server.endpoint()}));
  SetMany(&client, 100);
  EXPECT_EQ(GetMany(&client, 120), 100);
  EXPECT_EQ(client.stats().connects, 1u);
  EXPECT_EQ(server.Call({"DBSIZE"}).integer, 100);
  const auto wrong = Ask(&client, About("key1", {"LPUSH", "key1", "x"}));
  ASSERT_TRUE(wrong.ok()) << "an answer, if not a nice one";
  EXPECT_TRUE(wrong->IsError("WRONGTYPE"));
}

TEST(ClusterClientTest, AServerThatWasStartedAnewIsConnectedToAnew) {
  RedisServer server;
  ClusterClient client(Options({server.endpoint()}));
  SetMany(&client, 10);
  server.Kill();
  const auto down = Ask(&client, About("key1", {"GET", "key1"}));
  EXPECT_EQ(down.status().code(), absl::StatusCode::kUnavailable) << down.status();
  server.Start();
  EXPECT_TRUE(Eventually([&] { return Ask(&client, About("key1", {"GET", "key1"})).ok(); }));
  SetMany(&client, 10);
}

TEST(ClusterClientTest, OneOfTheSeedsIsEnough) {
  int closed_port = 0;
  {
    StrangeServer server({});
    closed_port = server.endpoint().port;
  }
  StrangeServer strange({"HTTP/1.1 400\r\n\r\n"});
  RedisServer server;
  ClusterClient client(Options({{.host = "127.0.0.1", .port = closed_port}, strange.endpoint(), server.endpoint()}));
  SetMany(&client, 10);
  EXPECT_EQ(GetMany(&client, 10), 10);
}

TEST(ClusterClientTest, AWrongPasswordIsSaidEvenIfOtherSeedsAreAway) {
  RedisServer server({.arguments = {"--requirepass", "secret"}, .login = {.password = "secret"}});
  for (const char* password : {"wrong", ""}) {
    ClusterClientOptions options = Options({server.endpoint(), {.host = "127.0.0.1", .port = 1}});
    options.login.password = password;
    ClusterClient client(options);
    const auto reply = Ask(&client, About("key", {"GET", "key"}));
    EXPECT_EQ(reply.status().code(), absl::StatusCode::kPermissionDenied) << reply.status();
    EXPECT_THAT(std::string(reply.status().message()), HasSubstr(*password != '\0' ? "WRONGPASS" : "NOAUTH"));
  }
}

TEST(ClusterClientTest, AServerThatHangsCostsTheDeadline) {
  RedisServer server;
  ClusterClient client(Options({server.endpoint()}));
  SetMany(&client, 1);
  server.Pause();
  const auto reply = Ask(&client, About("key0", {"GET", "key0"}), absl::Now() + absl::Milliseconds(100));
  EXPECT_FALSE(reply.ok());
  server.Resume();
  EXPECT_TRUE(Eventually([&] { return Ask(&client, About("key0", {"GET", "key0"})).ok(); }));
}

TEST(ClusterClientTest, RedirectionsInACircleEnd) {
  StrangeServer liar({"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:PORT\r\n", "-MOVED 12539 127.0.0.1:PORT\r\n"});
  ClusterClient client(Options({liar.endpoint()}));
  ASSERT_EQ(HashSlot("key"), 12539);
  const auto reply = Ask(&client, About("key", {"GET", "key"}));
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(reply.status().message()), HasSubstr("MOVED 12539"));
  EXPECT_EQ(client.stats().redirections, 6u);
}

class ThreeMastersTest : public testing::Test {
 protected:
  ThreeMastersTest() : cluster_(3, 1), client_(Options(cluster_.endpoints())) {}

  RedisCluster cluster_;
  ClusterClient client_;
};

TEST_F(ThreeMastersTest, EachKeyGoesToItsMasterAndASlotThatMovesIsFollowedByAskThenByMoved) {
  SetMany(&client_, 300);
  EXPECT_EQ(GetMany(&client_, 300), 300);
  EXPECT_EQ(client_.stats().redirections, 0u);
  int64_t sum = 0;
  for (int i = 0; i < 3; ++i) {
    const int64_t keys = cluster_.node(i).Call({"DBSIZE"}).integer;
    EXPECT_GT(keys, 50) << i;
    sum += keys;
  }
  EXPECT_EQ(sum, 300);

  // Many keys of one slot, half of which have moved.
  const uint16_t slot = HashSlot("{tag}");
  std::vector<std::string> keys;
  std::vector<ClusterClient::Request> sets, gets;
  for (int i = 0; i < 20; ++i) keys.push_back("{tag}" + std::to_string(i));
  for (const std::string& key : keys) {
    sets.push_back(About(key, {"SET", key, key}));
    gets.push_back(About(key, {"GET", key}));
  }
  const auto all_there = [&] {
    int found = 0;
    const auto replies = client_.Run(gets, Soon());
    for (size_t i = 0; i < keys.size(); ++i) {
      if (replies[i].ok() && replies[i]->text == keys[i]) ++found;
      if (!replies[i].ok()) ADD_FAILURE() << replies[i].status();
    }
    return found == static_cast<int>(keys.size());
  };
  for (const auto& reply : client_.Run(sets, Soon())) ASSERT_TRUE(reply.ok());
  const int from = cluster_.OwnerOf(slot, 0), to = (from + 1) % 3;
  cluster_.BeginMove(slot, from, to);
  cluster_.MoveKeys(slot, from, to, 10);
  EXPECT_TRUE(all_there()) << "half here, half there";
  const uint64_t asked = client_.stats().redirections;
  EXPECT_GE(asked, 10u);
  // A command about keys on both sides is answered by TRYAGAIN until they have moved.
  std::vector<std::string_view> both = {"EXISTS"};
  both.insert(both.end(), keys.begin(), keys.end());
  const ClusterClient::Request count = {.slot = slot, .arguments = both};
  const auto between = Ask(&client_, count);
  EXPECT_EQ(between.status().code(), absl::StatusCode::kUnavailable) << between.status();
  EXPECT_THAT(std::string(between.status().message()), HasSubstr("TRYAGAIN"));
  cluster_.MoveKeys(slot, from, to, 1000);
  cluster_.EndMove(slot, to);
  EXPECT_TRUE(all_there());
  EXPECT_GT(client_.stats().redirections, asked);
  const auto after = Ask(&client_, count);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->integer, 20);
  const uint64_t moved = client_.stats().redirections;
  EXPECT_TRUE(all_there());
  EXPECT_EQ(client_.stats().redirections, moved) << "known from now on";
}

TEST_F(ThreeMastersTest, WithAMasterGoneTheOthersAnswerAndItsReplicaTakesOver) {
  SetMany(&client_, 300);
  EXPECT_EQ(cluster_.node(0).Call({"WAIT", "1", "60000"}).integer, 1) << "what is not replicated would be lost";
  cluster_.node(0).Kill();
  const int found = GetMany(&client_, 300);
  EXPECT_GE(found, 150) << "the others'";
  EXPECT_TRUE(Eventually([&] { return GetMany(&client_, 300) == 300; })) << "the replica's, too";
  SetMany(&client_, 300);
  cluster_.node(2).Kill();  // nobody takes over
  for (int round = 0; round < 3; ++round) {
    const int left = GetMany(&client_, 300);
    EXPECT_GE(left, 150);
    EXPECT_LT(left, 300);
  }
}

}  // namespace
}  // namespace tidepool
