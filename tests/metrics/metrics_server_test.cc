// The server over real connections on loopback, asked by curl.
#include "metrics/metrics_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/raw_client.h"

namespace tidepool {
namespace {

using test::RawClient;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::unique_ptr<MetricsServer> Serve(std::vector<MetricsSource> sources) {
  return *MetricsServer::Start("127.0.0.1:0", std::move(sources));
}

// The answer with its headers.
std::string Get(const MetricsServer& server, const std::string& path, std::vector<std::string> more = {}) {
  std::vector<std::string> argv = {"curl", "-s", "-i"};
  argv.insert(argv.end(), more.begin(), more.end());
  argv.push_back("http://" + server.address() + path);
  return test::RunProgram(argv).out;
}

int PortOf(const MetricsServer& server) { return std::stoi(server.address().substr(server.address().rfind(':') + 1)); }

std::string Send(const MetricsServer& server, const std::string& bytes) {
  RawClient client(PortOf(server));
  client.Send(bytes);
  return client.ReadAll();
}

TEST(MetricsServerTest, EachScrapeAsksTheSourcesAnew) {
  std::atomic<int> scrapes = 0;
  const auto server = Serve({[&](MetricsPage& page) { page.Add("tidepool_steps_total", ++scrapes); },
                             [](MetricsPage& page) { page.Add("tidepool_cache_sessions", 5); }});
  EXPECT_THAT(Get(*server, "/metrics"),
              AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("Content-Type: text/plain"),
                    HasSubstr("\ntidepool_steps_total 1\n"), HasSubstr("\ntidepool_cache_sessions 5\n")));
  EXPECT_THAT(Get(*server, "/metrics"), HasSubstr("\ntidepool_steps_total 2\n"));
}

TEST(MetricsServerTest, ThereIsNothingElse) {
  const auto server = Serve({});
  for (const char* path : {"/", "/etc/passwd", "/../../etc/passwd", "/metrics.txt"}) {
    EXPECT_THAT(Get(*server, path, {"--path-as-is"}), AllOf(StartsWith("HTTP/1.1 404"), Not(HasSubstr("root:"))))
        << path;
  }
  EXPECT_THAT(Get(*server, "/metrics", {"-X", "PUT"}), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Get(*server, "/metrics?name=x"), StartsWith("HTTP/1.1 200"));
}

TEST(MetricsServerTest, NoBytesEndTheServer) {
  const auto server = Serve({});
  const std::string head = "GET /metrics HTTP/1.1\r\n";
  EXPECT_THAT(Send(*server, head + "Host: x\r\n\r\nand more"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Send(*server, head + "X: " + std::string(20'000, 'x')), StartsWith("HTTP/1.1 431"));
  for (const char* bytes : {"\r\n\r\n", "GET\r\n\r\n", "GET /metrics\r\n\r\n", " \r\n\r\n", "  \r\n\r\n"}) {
    EXPECT_THAT(Send(*server, bytes), StartsWith("HTTP/1.1 400")) << bytes;
  }
  std::mt19937 random(1);
  for (int i = 0; i < 50; ++i) {
    std::string bytes(random() % 300, 0);
    for (char& byte : bytes) byte = static_cast<char>(random());
    EXPECT_THAT(Send(*server, bytes + "\r\n\r\n"), StartsWith("HTTP/1.1 4"));
  }
  EXPECT_THAT(Get(*server, "/metrics"), StartsWith("HTTP/1.1 200"));
}

TEST(MetricsServerTest, ThoseWhoNeverAskKeepNobodyAway) {
  const auto server = Serve({});
  std::vector<std::unique_ptr<RawClient>> idle;
  for (int i = 0; i < 20; ++i) {
    idle.push_back(std::make_unique<RawClient>(PortOf(*server)));
    idle.back()->Send("GET /met");
  }
  EXPECT_THAT(Get(*server, "/metrics"), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(idle.front()->ReadAll(), "") << "the oldest had to go";
}

TEST(MetricsServerTest, AnAnswerLargerThanTheSocketTakesArrivesWhole) {
  const auto server = Serve({[](MetricsPage& page) {
    for (int i = 0; i < 20'000; ++i) {
      page.Add("tidepool_kv_merged_rows_total", i, {{"policy", std::string(200, 'p') + std::to_string(i)}});
    }
  }});
  EXPECT_THAT(Get(*server, "/metrics"), HasSubstr("p19999\"} 19999\n"));
}

TEST(MetricsServerTest, ABadAddressIsRefusedByName) {
  for (const char* address :
       {"", "9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:9464s", "unix:/tmp/x"}) {
    const absl::Status status = MetricsServer::Start(address, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("metrics_address")) << address;
  }
}

TEST(MetricsServerTest, AnAddressThatOthersReachIsRefusedUnlessItIsAskedFor) {
  for (const char* address : {"0.0.0.0:9464", "[::]:9464", "10.0.0.1:0", "host:1"}) {
    EXPECT_THAT(std::string(CheckMetricsAddress(address, /*elsewhere=*/false).message()),
                HasSubstr("--metrics-insecure"))
        << address;
    EXPECT_TRUE(CheckMetricsAddress(address, /*elsewhere=*/true).ok()) << address;
  }
  for (const char* address : {"", "127.0.0.1:0", "localhost:9464", "[::1]:9464"}) {
    EXPECT_TRUE(CheckMetricsAddress(address, /*elsewhere=*/false).ok()) << address;
  }
}

TEST(MetricsServerTest, AnAddressThatIsTakenIsUnavailable) {
  const auto server = Serve({});
  const absl::Status status = MetricsServer::Start(server->address(), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(server->address()));
}

}  // namespace
}  // namespace tidepool
