#include "cacheservice/resp/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/cacheservice/resp/strange_server.h"

namespace tidepool {
namespace {

using test::Certificate;
using test::RedisServer;
using test::StrangeServer;
using testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

std::vector<RespCommand> Gets(int count) {
  std::vector<RespCommand> commands;
  for (int i = 0; i < count; ++i) {
    const std::string key = "key" + std::to_string(i);
    const std::string_view arguments[] = {"GET", key};
    commands.emplace_back(arguments);
  }
  return commands;
}

// Large values in both directions at once: neither side may wait for the other to read.
void StoreAndReadBack(RespConnection* connection) {
  std::vector<RespCommand> commands;
  std::vector<std::string> values;
  for (int i = 0; i < 20; ++i) values.push_back(std::string(1'000'000 + i, static_cast<char>('a' + i)));
  for (int i = 0; i < 20; ++i) {
    const std::string key = "key" + std::to_string(i);
    const std::string_view set[] = {"SET", key, values[static_cast<size_t>(i)]}, get[] = {"GET", key};
    commands.emplace_back(set);
    commands.emplace_back(get);
  }
  connection->Start(std::move(commands));
  RespConnection::Exchange({&connection, 1}, Soon());
  ASSERT_TRUE(connection->status().ok()) << connection->status();
  ASSERT_EQ(connection->replies().size(), 40u);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(connection->replies()[2 * i].text, "OK");
    EXPECT_TRUE(connection->replies()[2 * i + 1].text == values[i]) << i;
  }
}

TEST(RespConnectionTest, CommandsAndRepliesOfManyMegabytesGoThroughTogether) {
  RedisServer server;
  auto connection = RespConnection::Connect(server.endpoint(), {}, Soon());
  ASSERT_TRUE(connection.ok()) << connection.status();
  StoreAndReadBack(connection->get());
  EXPECT_EQ(server.Call({"DBSIZE"}).integer, 20);
}

TEST(RespConnectionTest, OverAUnixSocket) {
  const test::TempDir dir;
  RedisServer server({.arguments = {"--unixsocket", dir.File("redis.sock")}});
  auto connection = RespConnection::Connect({.host = dir.File("redis.sock"), .port = 0}, {}, Soon());
  ASSERT_TRUE(connection.ok()) << connection.status();
  StoreAndReadBack(connection->get());
}

TEST(RespConnectionTest, SeveralServersAreAskedAtOnce) {
  RedisServer first, second;
  first.Call({"SET", "key0", "of the first"});
  second.Call({"SET", "key0", "of the second"});
  auto a = *RespConnection::Connect(first.endpoint(), {}, Soon());
  auto b = *RespConnection::Connect(second.endpoint(), {}, Soon());
  a->Start(Gets(1));
  b->Start(Gets(2));
  RespConnection* const both[] = {a.get(), b.get()};
  RespConnection::Exchange(both, Soon());
  EXPECT_EQ(a->replies()[0].text, "of the first");
  EXPECT_EQ(b->replies()[0].text, "of the second");
  EXPECT_TRUE(b->replies()[1].is(RespReply::Type::kNil));
}

TEST(RespConnectionTest, UserAndPassword) {
  RedisServer server({.arguments = {"--requirepass", "secret", "--user", "tide", "on", ">wave", "~*", "+@all"},
                      .login = {.password = "secret"}});
  EXPECT_TRUE(RespConnection::Connect(server.endpoint(), {.password = "secret"}, Soon()).ok());
  EXPECT_TRUE(RespConnection::Connect(server.endpoint(), {.user = "tide", .password = "wave"}, Soon()).ok());
  const absl::Status refused =
      RespConnection::Connect(server.endpoint(), {.user = "tide", .password = "hunter2"}, Soon()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("AUTH is refused: WRONGPASS"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr(server.endpoint().ToString()));
  EXPECT_THAT(std::string(refused.message()), testing::Not(HasSubstr("hunter2")));
}

class RespTlsTest : public testing::Test {
 protected:
  RespTlsTest() : certificate_(dir_), stranger_(dir_, "stranger") {}
  RespLogin Login(RespTlsOptions options) { return {.tls = *RespTlsContext::Make(options)}; }
  RespLogin Trusting() { return Login({.ca_file = certificate_.cert_file}); }
  RedisServer::Options Server(const char* auth_clients) {
    return {.arguments = {"--tls-cert-file", certificate_.cert_file, "--tls-key-file", certificate_.key_file,
                          "--tls-ca-cert-file", certificate_.cert_file, "--tls-auth-clients", auth_clients},
            .login = Login({.ca_file = certificate_.cert_file,
                            .cert_file = certificate_.cert_file,
                            .key_file = certificate_.key_file})};
  }

  const test::TempDir dir_;
  const Certificate certificate_, stranger_;
};

TEST_F(RespTlsTest, CommandsAndRepliesOfManyMegabytesGoThroughTogether) {
  RedisServer server(Server("no"));
  auto connection = RespConnection::Connect(server.endpoint(), Trusting(), Soon());
  ASSERT_TRUE(connection.ok()) << connection.status();
  StoreAndReadBack(connection->get());
}

TEST_F(RespTlsTest, AServerThatWeCannotVerifyIsRefused) {
  RedisServer server(Server("no"));
  absl::Status status =
      RespConnection::Connect(server.endpoint(), Login({.ca_file = stranger_.cert_file}), Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("certificate is refused"));
  // The right signer, but another name than the certificate's.
  status = RespConnection::Connect(server.endpoint(),
                                   Login({.ca_file = certificate_.cert_file, .server_name = "elsewhere"}), Soon())
               .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_TRUE(RespConnection::Connect(server.endpoint(),
                                      Login({.ca_file = certificate_.cert_file, .server_name = "localhost"}), Soon())
                  .ok());
}

TEST_F(RespTlsTest, AServerMayAskForOurCertificate) {
  RedisServer server(Server("yes"));
  EXPECT_EQ(server.Call({"PING"}).text, "PONG");
  auto without = RespConnection::Connect(server.endpoint(), Trusting(), Soon());
  // TLS 1.3 tells only with the first bytes of the server.
  if (without.ok()) {
    const std::string_view ping[] = {"PING"};
    EXPECT_FALSE((*without)->Call(ping, Soon()).ok());
  }
}

TEST_F(RespTlsTest, PlainTextAndTlsDoNotMeet) {
  RedisServer plain, tls(Server("no"));
  // A server of plain text waits for the end of a line.
  EXPECT_FALSE(RespConnection::Connect(plain.endpoint(), Trusting(), absl::Now() + absl::Milliseconds(100)).ok());
  auto connection = RespConnection::Connect(tls.endpoint(), {}, Soon());
  ASSERT_TRUE(connection.ok());
  const std::string_view ping[] = {"PING"};
  EXPECT_FALSE((*connection)->Call(ping, Soon()).ok());
}

TEST_F(RespTlsTest, FilesThatCannotBeUsedAreNamed) {
  for (const RespTlsOptions& options :
       {RespTlsOptions{.ca_file = dir_.File("none")}, RespTlsOptions{.cert_file = certificate_.cert_file},
        RespTlsOptions{.cert_file = certificate_.key_file, .key_file = certificate_.key_file},
        RespTlsOptions{.cert_file = certificate_.cert_file, .key_file = stranger_.key_file}}) {
    EXPECT_EQ(RespTlsContext::Make(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(RespConnectionTest, NobodyListens) {
  int port = 0;
  {
    StrangeServer server({});
    port = server.endpoint().port;
  }
  const absl::Status status = RespConnection::Connect({.host = "127.0.0.1", .port = port}, {}, Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(RespConnection::Connect({.host = "no..host", .port = 1}, {}, Soon()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(RespConnection::Connect({.host = "/no/such/socket", .port = 0}, {}, Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(RespConnectionTest, AServerThatSaysNothingCostsTheDeadlineAndTheConnection) {
  RedisServer server;
  auto connection = *RespConnection::Connect(server.endpoint(), {}, Soon());
  server.Pause();
  const std::string_view ping[] = {"PING"};
  EXPECT_EQ(connection->Call(ping, absl::Now() + absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  server.Resume();
  EXPECT_EQ(connection->status().code(), absl::StatusCode::kDeadlineExceeded);
  // The same while TLS is agreed on.
  StrangeServer mute({});
  const RespLogin login = {.tls = *RespTlsContext::Make({})};
  EXPECT_EQ(RespConnection::Connect(mute.endpoint(), login, absl::Now() + absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(RespConnectionTest, RepliesThatCameBeforeTheEndAreKept) {
  StrangeServer server({"+first\r\n$5\r\nsec"});
  auto connection = *RespConnection::Connect(server.endpoint(), {}, Soon());
  connection->Start(Gets(3));
  server.EndAfterAnswer();
  RespConnection* const self = connection.get();
  RespConnection::Exchange({&self, 1}, Soon());
  EXPECT_EQ(connection->status().code(), absl::StatusCode::kUnavailable);
  ASSERT_EQ(connection->replies().size(), 1u);
  EXPECT_EQ(connection->replies()[0].text, "first");
}

TEST(RespConnectionTest, ServersThatDoNotSpeakRespAreFoundOut) {
  for (const char* answer : {"HTTP/1.1 400 Bad Request\r\n\r\n", "+one\r\n+two\r\n", "\r\n"}) {
    StrangeServer server({answer});
    auto connection = *RespConnection::Connect(server.endpoint(), {}, Soon());
    const std::string_view ping[] = {"PING"};
    EXPECT_EQ(connection->Call(ping, Soon()).status().code(), absl::StatusCode::kDataLoss) << answer;
  }
}

TEST(RespConnectionTest, AReplyWithoutEndIsCutOff) {
  StrangeServer server({"$999999999\r\n" + std::string(4 << 20, 'x')});
  auto connection = *RespConnection::Connect(server.endpoint(), {}, Soon());
  const std::string_view ping[] = {"PING"};
  EXPECT_EQ(connection->Call(ping, Soon()).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace tidepool
