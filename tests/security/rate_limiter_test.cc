#include "security/rate_limiter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace tidepool {
namespace {

using testing::HasSubstr;

class RateLimiterTest : public testing::Test {
 protected:
  bool Admits(const std::string& tenant = "a") { return !limiter_.Admit(tenant).has_value(); }
  int AdmitsOf(int requests) {
    int admitted = 0;
    for (int i = 0; i < requests; ++i) admitted += Admits() ? 1 : 0;
    return admitted;
  }

  std::map<std::string, RateLimits, std::less<>> limits_;
  absl::Time now_ = absl::UnixEpoch();
  RateLimiter limiter_{[this](std::string_view tenant) {
                         const auto at = limits_.find(tenant);
                         return at == limits_.end() ? RateLimits() : at->second;
                       },
                       [this] { return now_; }};
};

TEST_F(RateLimiterTest, WithoutALimitEverythingIsAdmitted) {
  EXPECT_EQ(AdmitsOf(10'000), 10'000);
  limiter_.Charge("a", int64_t{1} << 50);
  EXPECT_TRUE(Admits());
}

TEST_F(RateLimiterTest, AMinutesRequestsMayComeAtOnceThenTheyComeEvenly) {
  limits_["a"] = {.requests = 30};
  EXPECT_EQ(AdmitsOf(100), 30);
  now_ += absl::Milliseconds(1999);
  EXPECT_FALSE(Admits());
  now_ += absl::Milliseconds(1);
  EXPECT_EQ(AdmitsOf(5), 1);
  now_ += absl::Hours(5);
  EXPECT_EQ(AdmitsOf(100), 30) << "no more than a minute's worth is saved up";
}

TEST_F(RateLimiterTest, ARefusalSaysWhenToTryAgainAndThenItWorks) {
  limits_["a"] = {.requests = 4};
  EXPECT_EQ(AdmitsOf(4), 4);
  now_ += absl::Seconds(5);
  const std::optional<RateRefusal> refusal = limiter_.Admit("a");
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->retry_after, absl::Seconds(10));
  EXPECT_THAT(refusal->message, HasSubstr("tenant a has had its 4 requests of a minute, try again in 10 s"));
  now_ += refusal->retry_after;
  EXPECT_TRUE(Admits());
}

TEST_F(RateLimiterTest, TokensThatAnAnswerTookTooMuchArePaidBack) {
  limits_["a"] = {.generated_tokens = 60};
  EXPECT_TRUE(Admits());
  limiter_.Charge("a", 70);  // 10 more than there were
  const std::optional<RateRefusal> refusal = limiter_.Admit("a");
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->retry_after, absl::Seconds(11));
  EXPECT_THAT(refusal->message, HasSubstr("60 generated tokens of a minute"));
  now_ += absl::Seconds(11);
  EXPECT_TRUE(Admits());
}

TEST_F(RateLimiterTest, ARequestThatTheTokensRefuseDoesNotCount) {
  limits_["a"] = {.requests = 2, .generated_tokens = 60};
  limiter_.Charge("a", 60);
  EXPECT_EQ(AdmitsOf(10), 0);
  now_ += absl::Seconds(2);
  EXPECT_EQ(AdmitsOf(10), 2);
}

TEST_F(RateLimiterTest, TenantsAreApart) {
  limits_["a"] = {.requests = 1};
  limits_["b"] = {.requests = 1};
  EXPECT_TRUE(Admits("a"));
  EXPECT_FALSE(Admits("a"));
  EXPECT_TRUE(Admits("b"));
}

TEST_F(RateLimiterTest, ChangedLimitsAreTakenOver) {
  limits_["a"] = {.requests = 1000};
  EXPECT_TRUE(Admits());
  limits_["a"] = {.requests = 2};
  EXPECT_EQ(AdmitsOf(10), 2);
  limits_["a"] = {};
  EXPECT_TRUE(Admits());
}

TEST_F(RateLimiterTest, AClockThatGoesBackGivesNothing) {
  limits_["a"] = {.requests = 60};
  EXPECT_EQ(AdmitsOf(60), 60);
  now_ -= absl::Hours(1);
  EXPECT_FALSE(Admits());
  now_ += absl::Seconds(1);
  EXPECT_TRUE(Admits());
}

}  // namespace
}  // namespace tidepool
