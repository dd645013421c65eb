#include "tracing/otlp_endpoint.h"

#include <gtest/gtest.h>

#include <string>

namespace tidepool {
namespace {

std::string Parsed(const std::string& url) {
  const absl::StatusOr<OtlpEndpoint> endpoint = OtlpEndpoint::Parse(url);
  return endpoint.ok() ? endpoint->host + " " + endpoint->port + " " + endpoint->path
                       : std::string(endpoint.status().message());
}

TEST(OtlpEndpointTest, PortAndPathHaveDefaults) {
  EXPECT_EQ(Parsed("http://collector"), "collector 4318 /v1/traces");
  EXPECT_EQ(Parsed("http://collector/"), "collector 4318 /v1/traces");
  EXPECT_EQ(Parsed("http://127.0.0.1:9/otlp/v1/traces"), "127.0.0.1 9 /otlp/v1/traces");
  EXPECT_EQ(Parsed("http://[::1]:4318"), "::1 4318 /v1/traces");
  EXPECT_EQ(Parsed("http://[::1]"), "::1 4318 /v1/traces");
}

TEST(OtlpEndpointTest, MistakesAreNamed) {
  EXPECT_EQ(Parsed("collector:4318"), "'collector:4318' is not http://HOST:PORT");
  EXPECT_EQ(Parsed("https://collector"), "'https://collector' is not http://HOST:PORT");
  EXPECT_EQ(Parsed("http://:4318"), "'http://:4318' has no host");
  for (const char* port : {"0", "65536", "x", ""}) {
    const std::string url = std::string("http://collector:") + port;
    EXPECT_EQ(Parsed(url), "'" + url + "' has no port of 1 to 65535");
  }
}

TEST(OtlpEndpointTest, NobodyThereIsUnavailable) {
  // Port 1 is tcpmux: nothing listens.
  EXPECT_TRUE(absl::IsUnavailable(PostJson({"127.0.0.1", "1", "/v1/traces"}, "{}", absl::Seconds(5))));
}

}  // namespace
}  // namespace tidepool
