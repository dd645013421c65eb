#include "security/audit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace tidepool {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(AuditTest, ALineSaysWhoWhatAndWithWhichResult) {
  testing::internal::CaptureStderr();
  Audit({.name = "token 12345678", .tenant = "acme", .role = Role::kAdmin}, "/tidepool.v1.CacheAdmin/DropSession",
        "acme/s\"1\n", absl::NotFoundError("x"));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr(R"( I audit: caller="token 12345678" tenant="acme" call="/tidepool.v1.CacheAdmin/DropSession" )"
                        R"(target="acme/s\"1\n" result=NOT_FOUND)"));
}

TEST(DenialLogTest, OnlyTheFirstOfASecondAreWrittenAndTheOthersCounted) {
  absl::Time now = absl::UnixEpoch();
  DenialLog denials([&now] { return now; });
  const Caller caller{.name = "token 12345678", .tenant = "acme"};
  testing::internal::CaptureStderr();
  int written = 0;
  for (int i = 0; i < 25; ++i) written += denials.Add(&caller, "/m", absl::PermissionDeniedError("")) ? 1 : 0;
  EXPECT_EQ(written, DenialLog::kMostPerSecond);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), Not(HasSubstr("left_out")));
  now += absl::Seconds(1);
  testing::internal::CaptureStderr();
  EXPECT_TRUE(denials.Add(nullptr, "/m", absl::UnauthenticatedError("")));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr(R"( W audit: caller="unknown" tenant="" call="/m" result=UNAUTHENTICATED left_out=15)"));
}

}  // namespace
}  // namespace tidepool
