// Who gets through to a service's handlers, over real connections.
#include "security/rpc/server_security.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/security/rpc/guarded_server.h"
#include "tests/support/access_lines.h"
#include "tests/support/certificates.h"

namespace tidepool {
namespace {

using test::TokenLine;

using grpc::StatusCode;
using testing::HasSubstr;

constexpr char kGenerate[] = "/tidepool.v1.Generation/Generate";
constexpr char kOffload[] = "/tidepool.v1.CacheStore/Offload";
constexpr char kGetStats[] = "/tidepool.v1.CacheAdmin/GetStats";
constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
constexpr char kHealth[] = "/grpc.health.v1.Health/Watch";

std::shared_ptr<const ChannelSecurity> Security(ChannelSecurityOptions options) {
  return *ChannelSecurity::Create(std::move(options));
}

// What the status says of access, whatever the method makes of an empty message.
bool Admitted(const grpc::Status& status) {
  return status.error_code() != StatusCode::UNAUTHENTICATED && status.error_code() != StatusCode::PERMISSION_DENIED &&
         status.error_code() != StatusCode::UNAVAILABLE;
}

class ServerSecurityTest : public testing::Test {
 protected:
  void WriteAccess(const std::string& text) {
    std::ofstream(access_ + ".new") << text;
    std::rename((access_ + ".new").c_str(), access_.c_str());
  }
  ServerSecurityOptions Plain() const {
    ServerSecurityOptions options;
    options.access_file = access_;
    return options;
  }
  ServerSecurityOptions Tls() const {
    ServerSecurityOptions options;
    options.tls_cert = files_.File("server.pem");
    options.tls_key = files_.File("server.key");
    options.tls_ca = files_.ca();
    return options;
  }
  std::shared_ptr<const ChannelSecurity> Client(const std::string& identity, const std::string& token = "") const {
    ChannelSecurityOptions options;
    options.tls_ca = files_.ca();
    if (!identity.empty()) {
      options.tls_cert = files_.File(identity + ".pem");
      options.tls_key = files_.File(identity + ".key");
    }
    options.token = token;
    return Security(options);
  }

  test::TempDir dir_;
  const std::string access_ = dir_.File("access");
  test::Certificates files_;
};

TEST_F(ServerSecurityTest, EveryCallOfEveryServiceIsLookedAtOverTcpAndUnixSockets) {
  WriteAccess(TokenLine("user-token", "acme", "user") + TokenLine("worker-token", "*", "worker") +
              TokenLine("admin-token", "*", "admin"));
  for (const std::string& listen : {std::string("127.0.0.1:0"), "unix:" + dir_.File("socket")}) {
    test::GuardedServer server(Plain(), listen);
    auto call = [&](const std::string& token, const char* method) {
      const auto security = Security({.token = token});
      return test::CallMethod(server.address(), security.get(), method);
    };
    auto refused = [&](const std::string& token, const char* method, StatusCode code) {
      const int before = server.echo().calls();
      EXPECT_EQ(call(token, method).error_code(), code) << listen << " " << token << " " << method;
      EXPECT_EQ(server.echo().calls(), before) << "no handler sees it";
    };
    for (const char* method : {kGenerate, kOffload, kGetStats, kReflection, "/no.such.Service/Method"}) {
      refused("", method, StatusCode::UNAUTHENTICATED);
      refused("wrong", method, StatusCode::UNAUTHENTICATED);
    }
    refused("user-token", kOffload, StatusCode::PERMISSION_DENIED);
    refused("user-token", kGetStats, StatusCode::PERMISSION_DENIED);
    refused("worker-token", kGenerate, StatusCode::PERMISSION_DENIED);
    refused("worker-token", kGetStats, StatusCode::PERMISSION_DENIED);
    refused("admin-token", kOffload, StatusCode::PERMISSION_DENIED);
    EXPECT_TRUE(call("user-token", kGenerate).ok());
    EXPECT_EQ(server.echo().last()->tenant, "acme") << "the handler knows who calls";
    EXPECT_TRUE(call("worker-token", kOffload).ok());
    EXPECT_TRUE(call("admin-token", kGetStats).ok());
    EXPECT_TRUE(server.echo().last()->all_tenants());
    EXPECT_TRUE(Admitted(call("user-token", kReflection)));
    EXPECT_TRUE(Admitted(call("", kHealth)));
  }
}

TEST_F(ServerSecurityTest, AHeaderThatIsGivenTwiceIsRefused) {
  WriteAccess(TokenLine("user-token", "acme", "user") + TokenLine("other-token", "other", "user"));
  test::GuardedServer server(Plain());
  grpc::GenericStub stub(grpc::CreateChannel(server.address(), grpc::InsecureChannelCredentials()));
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer user-token");
  context.AddMetadata("authorization", "Bearer other-token");
  auto call = stub.PrepareUnaryCall(&context, kGenerate, grpc::ByteBuffer(), &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  EXPECT_EQ(status.error_code(), StatusCode::UNAUTHENTICATED) << status.error_message();
  EXPECT_EQ(server.echo().calls(), 0);
}

TEST_F(ServerSecurityTest, ATokenThatIsTakenOutOfTheFileIsRefusedOnTheNextCall) {
  WriteAccess(TokenLine("first", "acme", "user"));
  test::GuardedServer server(Plain());
  const auto first = Security({.token = "first"}), second = Security({.token = "second"});
  EXPECT_TRUE(test::CallMethod(server.address(), first.get(), kGenerate).ok());
  WriteAccess(TokenLine("second", "acme", "user"));
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  while (!test::CallMethod(server.address(), second.get(), kGenerate).ok() &&
         std::chrono::steady_clock::now() < until) {
  }
  EXPECT_EQ(test::CallMethod(server.address(), first.get(), kGenerate).error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(test::CallMethod(server.address(), second.get(), kGenerate).ok());
}

TEST_F(ServerSecurityTest, ACertificateSaysWhoCallsUnlessATokenDoes) {
  WriteAccess("cert worker * worker\n" + TokenLine("user-token", "acme", "user"));
  ServerSecurityOptions options = Tls();
  options.access_file = access_;
  test::GuardedServer server(options);
  auto call = [&](const std::string& identity, const std::string& token, const char* method) {
    return test::CallMethod(server.address(), Client(identity, token).get(), method);
  };
  EXPECT_TRUE(call("worker", "", kOffload).ok());
  EXPECT_EQ(call("worker", "", kGenerate).error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(call("worker", "user-token", kGenerate).ok());
  EXPECT_EQ(call("worker", "wrong", kOffload).error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(call("", "user-token", kGenerate).ok()) << "without a certificate, which is not required";
  const grpc::Status unknown = call("client", "", kOffload);
  EXPECT_EQ(unknown.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(unknown.error_message(), HasSubstr("client certificate (client,"));
}

TEST_F(ServerSecurityTest, WithoutAClientCertificateOrWithABadOneTheConnectionIsRefused) {
  ServerSecurityOptions options = Tls();
  options.tls_require_client = true;
  test::GuardedServer server(options);
  EXPECT_TRUE(test::CallMethod(server.address(), Client("client").get(), kGenerate).ok());
  const grpc::Status none = test::CallMethod(server.address(), Client("").get(), kGenerate);
  EXPECT_EQ(none.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(none.error_message(), HasSubstr("does it require a client certificate? --tls-cert, --tls-key"));

  const test::Certificates others;
  const auto stranger =
      Security({.tls_ca = files_.ca(), .tls_cert = others.File("client.pem"), .tls_key = others.File("client.key")});
  const grpc::Status strange = test::CallMethod(server.address(), stranger.get(), kGenerate);
  EXPECT_EQ(strange.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(strange.error_message(), HasSubstr("does it refuse the client certificate"));

  // One that was good when the client started.
  const auto late = Client("worker");
  files_.Expire("worker");
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  grpc::Status expired;
  do {
    expired = test::CallMethod(server.address(), late.get(), kGenerate);
  } while (expired.ok() && std::chrono::steady_clock::now() < until);
  EXPECT_EQ(expired.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(expired.error_message(), HasSubstr("it may have expired"));
}

TEST_F(ServerSecurityTest, ARunningStreamOutlivesNewCertificatesAndNewConnectionsUseThem) {
  ServerSecurityOptions options = Tls();
  options.tls_require_client = true;
  test::GuardedServer server(options);
  const test::Certificates next;
  const auto old_client = Client("client");  // watches the files that are about to change
  const auto next_client =
      Security({.tls_ca = next.ca(), .tls_cert = next.File("client.pem"), .tls_key = next.File("client.key")});
  EXPECT_EQ(test::CallMethod(server.address(), next_client.get(), kGenerate).error_code(), StatusCode::UNAVAILABLE);
  test::EchoStream stream(server.address(), old_client.get(), kGenerate);
  ASSERT_TRUE(stream.Ask());
  files_.ReplaceBy(next);
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  grpc::Status status;
  do {
    ASSERT_TRUE(stream.Ask());
    status = test::CallMethod(server.address(), next_client.get(), kGenerate);
  } while (!status.ok() && std::chrono::steady_clock::now() < until);
  EXPECT_TRUE(status.ok()) << status.error_message();
  // The old client has read its new files, too: a connection made now uses them.
  do {
    status = test::CallMethod(server.address(), old_client.get(), kGenerate);
  } while (!status.ok() && std::chrono::steady_clock::now() < until);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(stream.Ask());
  EXPECT_TRUE(stream.Finish().ok());
}

TEST_F(ServerSecurityTest, OptionsThatDoNotFitAreRefusedByFlag) {
  auto refusal = [](const ServerSecurityOptions& options, const std::string& listen = "127.0.0.1:0") {
    const absl::Status status = ServerSecurity::Open(options, listen).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  ServerSecurityOptions options = Tls();
  options.tls_key = "";
  EXPECT_THAT(refusal(options), HasSubstr("--tls-cert, --tls-key"));
  options = Tls();
  options.tls_ca = "";
  options.tls_require_client = true;
  EXPECT_THAT(refusal(options), HasSubstr("--tls-require-client: needs --tls-cert and --tls-key, and --tls-ca"));
  options = Tls();
  options.tls_ca = files_.File("server.key");
  EXPECT_THAT(refusal(options), HasSubstr("--tls-ca"));
  options = {};
  options.access_file = access_;
  EXPECT_THAT(refusal(options), HasSubstr("--access-file: " + access_));
}

TEST_F(ServerSecurityTest, OtherMachinesNeedTlsAndToBeAuthenticated) {
  WriteAccess("");
  const std::string listen = "0.0.0.0:0";
  auto opens = [&listen](const ServerSecurityOptions& options) { return ServerSecurity::Open(options, listen).ok(); };
  EXPECT_FALSE(opens({}));
  EXPECT_FALSE(opens(Plain())) << "tokens in plain text";
  EXPECT_FALSE(opens(Tls())) << "TLS, but anybody";
  EXPECT_TRUE(opens({.insecure = true}));
  ServerSecurityOptions options = Tls();
  options.access_file = access_;
  EXPECT_TRUE(opens(options));
  options = Tls();
  options.tls_require_client = true;
  EXPECT_TRUE(opens(options));
}

}  // namespace
}  // namespace tidepool
