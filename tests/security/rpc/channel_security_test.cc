// What a client accepts of a service, and what it gives away, over real connections.
#include "security/rpc/channel_security.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/security/rpc/guarded_server.h"
#include "tests/support/certificates.h"

namespace tidepool {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

constexpr char kMethod[] = "/tidepool.v1.Generation/Generate";

// Of an interface but loopback; empty: there is none.
std::string OutsideAddress() {
  ifaddrs* interfaces = nullptr;
  if (getifaddrs(&interfaces) != 0) return "";
  std::string found;
  for (const ifaddrs* at = interfaces; at != nullptr && found.empty(); at = at->ifa_next) {
    if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET || (at->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr, text, sizeof text);
    found = text;
  }
  freeifaddrs(interfaces);
  return found;
}

class ChannelSecurityTest : public testing::Test {
 protected:
  ServerSecurityOptions Tls() const {
    ServerSecurityOptions options;
    options.tls_cert = files_.File("server.pem");
    options.tls_key = files_.File("server.key");
    return options;
  }
  static grpc::Status Call(const test::GuardedServer& server, const ChannelSecurityOptions& options) {
    const auto security = *ChannelSecurity::Create(options);
    return test::CallMethod(server.address(), security.get(), kMethod);
  }
  static std::string Refusal(const ChannelSecurityOptions& options) {
    const absl::Status status = ChannelSecurity::Create(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  test::TempDir dir_;
  test::Certificates files_;
};

TEST_F(ChannelSecurityTest, AServiceMustBeWhoItIsTakenForAndTheMessageSaysWhatIsWrong) {
  const test::GuardedServer server(Tls());
  auto fails = [&server](const ChannelSecurityOptions& options, const std::string& message) {
    const grpc::Status status = Call(server, options);
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_THAT(status.error_message(), HasSubstr(message));
  };
  EXPECT_TRUE(Call(server, {.tls_ca = files_.ca()}).ok());
  EXPECT_TRUE(Call(server, {.tls_ca = files_.ca(), .tls_server_name = "localhost"}).ok());
  const test::Certificates others;
  fails({.tls_ca = others.ca()}, "not signed by --tls-ca " + others.ca() + ", or has expired");
  fails({.tls_ca = files_.ca(), .tls_server_name = "cache.example"}, "is not for --tls-server-name cache.example");
  fails({}, "does it speak TLS? --tls-ca");
  const test::GuardedServer plain({});
  const grpc::Status status = Call(plain, {.tls_ca = files_.ca()});
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("it speaks plain text: without --tls-ca"));
}

TEST_F(ChannelSecurityTest, AServicesCertificateThatExpiresWhileItRunsIsRefused) {
  const test::GuardedServer server(Tls());
  files_.Expire("server");
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  grpc::Status status;
  do {
    status = Call(server, {.tls_ca = files_.ca()});
  } while (status.ok() && std::chrono::steady_clock::now() < until);
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("or has expired"));
}

TEST_F(ChannelSecurityTest, UnixSocketsArePlainTextOnBothSides) {
  const test::GuardedServer server(Tls(), "unix:" + dir_.File("socket"));
  EXPECT_TRUE(Call(server, {.tls_ca = files_.ca()}).ok());
  EXPECT_TRUE(Call(server, {}).ok());
}

TEST_F(ChannelSecurityTest, ATokenFileIsReadAgainWhenItChanges) {
  const std::string access = dir_.File("access"), token = dir_.File("token");
  const Sha256::Digest digest = TokenDigest("right");
  std::ofstream(access) << "token " << absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), 32})
                        << " acme user\n";
  std::ofstream(token) << "wrong\n";
  test::GuardedServer server({.access_file = access});
  const auto security = *ChannelSecurity::Create({.token_file = token});
  EXPECT_EQ(test::CallMethod(server.address(), security.get(), kMethod).error_code(), StatusCode::UNAUTHENTICATED);
  std::ofstream(token + ".new") << "right\n";
  std::rename((token + ".new").c_str(), token.c_str());
  EXPECT_TRUE(test::CallMethod(server.address(), security.get(), kMethod).ok());
  std::remove(token.c_str());
  EXPECT_TRUE(test::CallMethod(server.address(), security.get(), kMethod).ok()) << "gone for a moment";
}

TEST_F(ChannelSecurityTest, InPlainTextATokenDoesNotLeaveTheMachine) {
  // This machine, by an address that might as well be another one's.
  const std::string host = OutsideAddress();
  if (host.empty()) GTEST_SKIP() << "this machine has only the loopback interface";
  test::GuardedServer server({.insecure = true}, "0.0.0.0:0");
  const std::string address = absl::StrCat(host, server.address().substr(server.address().rfind(':')));
  EXPECT_TRUE(test::CallMethod(address, nullptr, kMethod).ok());
  const grpc::Status refused =
      test::CallMethod(address, (*ChannelSecurity::Create({.token = "secret"})).get(), kMethod);
  EXPECT_EQ(refused.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.error_message(), HasSubstr("in plain text a token is sent to this machine only: --tls-ca"));
  EXPECT_EQ(server.echo().calls(), 1);
}

TEST_F(ChannelSecurityTest, OptionsThatDoNotFitAreRefusedByFlag) {
  const std::string cert = files_.File("client.pem"), key = files_.File("client.key");
  EXPECT_THAT(Refusal({.tls_ca = files_.ca(), .tls_cert = cert}), HasSubstr("--tls-cert, --tls-key"));
  EXPECT_THAT(Refusal({.tls_cert = cert, .tls_key = key}), HasSubstr("--tls-cert: is given without --tls-ca"));
  EXPECT_THAT(Refusal({.tls_server_name = "x"}), HasSubstr("--tls-server-name"));
  EXPECT_THAT(Refusal({.tls_ca = dir_.File("none")}), HasSubstr("--tls-ca: " + dir_.File("none")));
  EXPECT_THAT(Refusal({.token = "x", .token_file = "y"}), HasSubstr("--token-file"));
  EXPECT_THAT(Refusal({.token = "two words"}), HasSubstr("TIDEPOOL_TOKEN"));
  EXPECT_THAT(Refusal({.token_file = dir_.File("none")}), HasSubstr("--token-file: " + dir_.File("none")));
  std::ofstream(dir_.File("empty")) << "\n";
  EXPECT_THAT(Refusal({.token_file = dir_.File("empty")}), HasSubstr("--token-file: is not a token"));
  files_.Expire("client");
  EXPECT_THAT(Refusal({.tls_ca = files_.ca(), .tls_cert = cert, .tls_key = key}), HasSubstr("--tls-cert: " + cert));
}

}  // namespace
}  // namespace tidepool
