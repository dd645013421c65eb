#include "base/listen_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidepool {
namespace {

using testing::HasSubstr;

TEST(ListenAddressTest, LoopbackAndUnixSocketsAreForEverybodyOnThisMachine) {
  for (const char* listen : {"127.0.0.1:0", "127.1.2.3:65535", "localhost:80", "[::1]:80", "unix:/tmp/a"}) {
    EXPECT_EQ(CheckListenAddress(listen, /*elsewhere=*/false), absl::OkStatus()) << listen;
  }
}

TEST(ListenAddressTest, WhatOthersReachMustBeAllowedAndTheMessageSaysWhatToGive) {
  for (const char* listen : {"0.0.0.0:80", "[::]:80", "10.0.0.1:80", "127.evil.example:80", "localhost.example:80",
                             "[::1].example:80", "127:80", "cache:80"}) {
    const absl::Status refused = CheckListenAddress(listen, /*elsewhere=*/false);
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << listen;
    for (const char* part : {"--tls-cert", "--tls-key", "--access-file", "--tls-require-client", "--insecure"}) {
      EXPECT_THAT(std::string(refused.message()), HasSubstr(part));
    }
    EXPECT_EQ(CheckListenAddress(listen, /*elsewhere=*/true), absl::OkStatus()) << listen;
  }
}

TEST(ListenAddressTest, WhatIsNoAddressIsRefused) {
  for (const char* listen : {"", ":", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "unix:"}) {
    EXPECT_EQ(CheckListenAddress(listen, /*elsewhere=*/true).code(), absl::StatusCode::kInvalidArgument) << listen;
  }
}

}  // namespace
}  // namespace tidepool
