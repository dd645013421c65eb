#include "security/pem_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "absl/time/clock.h"
#include "tests/support/certificates.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

class PemFilesTest : public testing::Test {
 protected:
  std::string Refusal(const std::string& cert, const std::string& key, absl::Time now = absl::Now()) {
    const absl::Status status = CheckIdentityFiles(files_.File(cert), files_.File(key), now);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }
  test::Certificates files_;
};

TEST_F(PemFilesTest, WhatBelongsTogetherIsFine) {
  EXPECT_EQ(CheckIdentityFiles(files_.File("server.pem"), files_.File("server.key"), absl::Now()), absl::OkStatus());
  EXPECT_EQ(CheckAuthorityFile(files_.ca()), absl::OkStatus());
}

TEST_F(PemFilesTest, WhatIsWrongIsNamedByFlagAndFile) {
  EXPECT_THAT(Refusal("none.pem", "server.key"), HasSubstr("--tls-cert: " + files_.File("none.pem") + ": cannot be"));
  EXPECT_THAT(Refusal("server.key", "server.key"), HasSubstr("holds no PEM certificate"));
  EXPECT_THAT(Refusal("server.pem", "none.key"), HasSubstr("--tls-key: " + files_.File("none.key") + ": cannot be"));
  EXPECT_THAT(Refusal("server.pem", "server.pem"), HasSubstr("holds no PEM private key"));
  EXPECT_THAT(Refusal("server.pem", "client.key"), HasSubstr("is not the key of the certificate in"));
  EXPECT_THAT(std::string(CheckAuthorityFile(files_.File("ca.key")).message()),
              HasSubstr("--tls-ca: " + files_.File("ca.key") + ": holds no PEM certificate"));
}

TEST_F(PemFilesTest, ACertificateHasItsTime) {
  EXPECT_THAT(Refusal("server.pem", "server.key", absl::Now() - absl::Hours(24)), HasSubstr("is not valid before 2"));
  EXPECT_THAT(Refusal("server.pem", "server.key", absl::Now() + absl::Hours(24 * 31)), HasSubstr("expired at 2"));
  files_.Expire("server");
  EXPECT_THAT(Refusal("server.pem", "server.key"), HasSubstr("--tls-cert: " + files_.File("server.pem") + ": expired"));
}

}  // namespace
}  // namespace tidepool
