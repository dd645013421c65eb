#include "cacheservice/resp/server_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidepool {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(ServerUrlTest, HostsWithAndWithoutPorts) {
  const auto servers = ParseRespServers("redis://a,b:7000,[::1]:7001,10.0.0.1");
  ASSERT_TRUE(servers.ok()) << servers.status();
  EXPECT_FALSE(servers->tls);
  EXPECT_EQ(servers->password, "");
  EXPECT_THAT(servers->endpoints, ElementsAre(RespEndpoint{"a", 6379}, RespEndpoint{"b", 7000},
                                              RespEndpoint{"::1", 7001}, RespEndpoint{"10.0.0.1", 6379}));
  EXPECT_EQ(servers->endpoints[2].ToString(), "[::1]:7001");
  EXPECT_TRUE(ParseRespServers("redis://a/").ok());
  EXPECT_TRUE(ParseRespServers("redis://a/0").ok());
}

TEST(ServerUrlTest, UserAndPasswordArePercentDecoded) {
  auto servers = ParseRespServers("rediss://tide:p%40ss%3a%25,x@host:1");
  ASSERT_TRUE(servers.ok()) << servers.status();
  EXPECT_TRUE(servers->tls);
  EXPECT_EQ(servers->user, "tide");
  EXPECT_EQ(servers->password, "p@ss:%,x");
  servers = ParseRespServers("redis://:secret@host");
  ASSERT_TRUE(servers.ok());
  EXPECT_EQ(servers->user, "");
  EXPECT_EQ(servers->password, "secret");
  servers = ParseRespServers("redis://tide@host");
  ASSERT_TRUE(servers.ok());
  EXPECT_EQ(servers->user, "tide");
  EXPECT_EQ(servers->password, "");
}

TEST(ServerUrlTest, AUnixSocketIsAPath) {
  const auto servers = ParseRespServers("redis+unix://:pw@/run/redis.sock");
  ASSERT_TRUE(servers.ok()) << servers.status();
  EXPECT_EQ(servers->password, "pw");
  EXPECT_THAT(servers->endpoints, ElementsAre(RespEndpoint{"/run/redis.sock", 0}));
  EXPECT_EQ(servers->endpoints[0].ToString(), "unix:/run/redis.sock");
}

TEST(ServerUrlTest, MistakesAreNamedAndPasswordsAreNot) {
  const std::string long_path = "redis+unix:///" + std::string(200, 'x');
  for (const std::string& url :
       {std::string("http://h:1"), std::string("redis://:hunter2@h:0"), std::string("redis://:hunter2@h:65536"),
        std::string("redis://:hunter2@h:1x"), std::string("redis://:hunter2@h:"), std::string("redis://:hunter2@"),
        std::string("redis://:hunter2@a,,b"), std::string("redis://:hunter2@a/1"), std::string("redis://:hunter2@[::1"),
        std::string("redis://:hunter2@[::1]x"), std::string("redis://:hunter2%4@h"),
        std::string("redis+unix://:hunter2@relative"), long_path}) {
    const absl::Status status = ParseRespServers(url).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << url;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("hunter2"))) << url;
    EXPECT_FALSE(status.message().empty());
  }
  std::string many = "redis://a";
  for (int i = 0; i < 64; ++i) many += ",a";
  EXPECT_THAT(std::string(ParseRespServers(many).status().message()), HasSubstr("at most 64"));
}

TEST(ServerUrlTest, LoopbackAddressesAndSocketsAreLocal) {
  for (const char* url : {"redis://localhost", "redis://127.0.0.9", "redis://[::1]", "redis+unix:///s"}) {
    EXPECT_TRUE(ParseRespServers(url)->endpoints[0].IsLocal()) << url;
  }
  for (const char* url :
       {"redis://10.0.0.1", "redis://localhost.example", "redis://127.example.com", "redis://[::2]"}) {
    EXPECT_FALSE(ParseRespServers(url)->endpoints[0].IsLocal()) << url;
  }
}

}  // namespace
}  // namespace tidepool
