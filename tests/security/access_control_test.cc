#include "security/access_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

std::string HexOf(const std::string& token) {
  const Sha256::Digest digest = TokenDigest(token);
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

class AccessControlTest : public testing::Test {
 protected:
  // In place of the old file, as whoever deploys does it.
  void Write(const std::string& text) {
    std::ofstream(file_ + ".new") << text;
    std::rename((file_ + ".new").c_str(), file_.c_str());
  }
  void Open() {
    control_ = *AccessControl::Open(file_, [this] { return now_; });
  }
  absl::StatusCode With(const char* header) { return control_->Identify(header, {}).status().code(); }

  test::TempDir dir_;
  const std::string file_ = dir_.File("access");
  absl::Time now_ = absl::UnixEpoch();
  std::unique_ptr<AccessControl> control_;
};

TEST_F(AccessControlTest, WithoutAFileEverybodyIsAnyone) {
  const auto control = *AccessControl::Open("");
  EXPECT_TRUE(control->Identify(std::nullopt, {})->anyone);
  EXPECT_TRUE(control->Identify("nonsense", {})->all_tenants());
  EXPECT_EQ(control->LimitsOf("x"), RateLimits());
}

TEST_F(AccessControlTest, ATokenSaysWhoCalls) {
  Write(absl::StrCat("token ", HexOf("secret"), " acme user\n"));
  Open();
  const absl::StatusOr<Caller> caller = control_->Identify("Bearer secret", {});
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->tenant, "acme");
  EXPECT_FALSE(caller->anyone);
  EXPECT_EQ(With("bearer  secret "), absl::StatusCode::kOk) << "the scheme's name is not case sensitive";
  for (const char* wrong : {"", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret"}) {
    EXPECT_EQ(With(wrong), absl::StatusCode::kUnauthenticated) << wrong;
  }
}

TEST_F(AccessControlTest, WhatIsMissingIsSaid) {
  Write("cert worker * worker\n");
  Open();
  EXPECT_THAT(std::string(control_->Identify(std::nullopt, {}).status().message()), HasSubstr("--token-file"));
  EXPECT_THAT(std::string(control_->Identify(std::nullopt, {"eve", "eve.test"}).status().message()),
              HasSubstr("client certificate (eve, eve.test) is not known"));
  EXPECT_EQ(control_->Identify(std::nullopt, {"x", "worker"})->role, Role::kWorker);
  EXPECT_EQ(control_->Identify("Bearer wrong", {"worker"}).status().code(), absl::StatusCode::kUnauthenticated)
      << "a wrong token is not made good by a certificate";
}

TEST_F(AccessControlTest, AChangedFileIsInForceAfterASecond) {
  Write(absl::StrCat("token ", HexOf("old"), " a user\n"));
  Open();
  Write(absl::StrCat("token ", HexOf("new"), " a user\nrate a 5 -\n"));
  now_ += absl::Milliseconds(999);
  EXPECT_EQ(With("Bearer new"), absl::StatusCode::kUnauthenticated);
  now_ += absl::Milliseconds(1);
  EXPECT_EQ(With("Bearer new"), absl::StatusCode::kOk);
  EXPECT_EQ(With("Bearer old"), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(control_->LimitsOf("a").requests, 5);
}

TEST_F(AccessControlTest, ABadOrMissingFileLeavesInForceWhatWasThere) {
  Write(absl::StrCat("token ", HexOf("old"), " a user\n"));
  Open();
  for (int step = 0; step < 2; ++step) {
    if (step == 0) Write("nonsense\n");
    if (step == 1) std::remove(file_.c_str());
    now_ += absl::Seconds(2);
    testing::internal::CaptureStderr();
    EXPECT_EQ(With("Bearer old"), absl::StatusCode::kOk);
    now_ += absl::Seconds(2);
    EXPECT_EQ(With("Bearer old"), absl::StatusCode::kOk);
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_THAT(log, HasSubstr("what was there before stays in force: " + file_));
    EXPECT_EQ(log.find("in force"), log.rfind("in force")) << "said once";
  }
  Write("cert x a user\n");
  now_ += absl::Seconds(2);
  EXPECT_EQ(With("Bearer old"), absl::StatusCode::kUnauthenticated);
}

TEST_F(AccessControlTest, AFileThatIsBadAtTheStartIsRefusedByNameAndLine) {
  EXPECT_THAT(std::string(AccessControl::Open(file_).status().message()), HasSubstr(file_ + ": cannot be read"));
  Write("\nnonsense\n");
  EXPECT_THAT(std::string(AccessControl::Open(file_).status().message()), HasSubstr(file_ + ": line 2: "));
}

}  // namespace
}  // namespace tidepool
