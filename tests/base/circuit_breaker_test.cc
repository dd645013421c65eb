#include "base/circuit_breaker.h"

#include <gtest/gtest.h>

namespace tidepool {
namespace {

using State = CircuitBreaker::State;

class CircuitBreakerTest : public testing::Test {
 protected:
  void FailUntilOpen() {
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(breaker_.Allow(now_));
      breaker_.Failed(now_);
    }
    ASSERT_EQ(breaker_.state(), State::kOpen);
  }
  // Waits for the end of the pause, and returns how long that was.
  absl::Duration PassThePause() {
    const absl::Duration pause = breaker_.retry_at() - now_;
    EXPECT_FALSE(breaker_.Allow(breaker_.retry_at() - absl::Nanoseconds(1)));
    now_ = breaker_.retry_at();
    return pause;
  }

  CircuitBreaker breaker_{CircuitBreakerOptions(), /*seed=*/1};
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
};

TEST_F(CircuitBreakerTest, SomeFailuresInARowOpenIt) {
  for (int round = 0; round < 10; ++round) {  // never three in a row
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(breaker_.Allow(now_));
      breaker_.Failed(now_);
    }
    ASSERT_TRUE(breaker_.Allow(now_));
    breaker_.Succeeded();
  }
  EXPECT_EQ(breaker_.opened(), 0u);
  FailUntilOpen();
  EXPECT_EQ(breaker_.opened(), 1u);
  EXPECT_FALSE(breaker_.Allow(now_));
  EXPECT_FALSE(breaker_.WouldAllow(now_));
}

TEST_F(CircuitBreakerTest, OneLastingFailureIsEnough) {
  ASSERT_TRUE(breaker_.Allow(now_));
  breaker_.Failed(now_, /*lasting=*/true);
  EXPECT_FALSE(breaker_.Allow(now_));
}

TEST_F(CircuitBreakerTest, OneCallProbesWhenThePauseIsOverAndItsSuccessCloses) {
  FailUntilOpen();
  PassThePause();
  EXPECT_TRUE(breaker_.WouldAllow(now_));
  EXPECT_TRUE(breaker_.Allow(now_));
  EXPECT_EQ(breaker_.state(), State::kHalfOpen);
  EXPECT_FALSE(breaker_.Allow(now_)) << "one at a time";
  breaker_.Succeeded();
  EXPECT_EQ(breaker_.state(), State::kClosed);
  EXPECT_TRUE(breaker_.Allow(now_));
  breaker_.Failed(now_);
  EXPECT_EQ(breaker_.state(), State::kClosed) << "counted from the beginning";
}

TEST_F(CircuitBreakerTest, PausesDoubleFromFiveSecondsToFiveMinutesAndStartOverAfterASuccess) {
  FailUntilOpen();
  double nominal = 5;
  for (int probe = 0; probe < 10; ++probe) {
    const double pause = absl::ToDoubleSeconds(PassThePause());
    EXPECT_GE(pause, nominal / 2) << probe;
    EXPECT_LE(pause, nominal) << probe;
    nominal = std::min(2 * nominal, 300.0);
    ASSERT_TRUE(breaker_.Allow(now_));
    breaker_.Failed(now_);
    ASSERT_EQ(breaker_.state(), State::kOpen);
  }
  EXPECT_EQ(nominal, 300);
  EXPECT_EQ(breaker_.opened(), 1u) << "a probe that fails is no new trouble";
  PassThePause();
  ASSERT_TRUE(breaker_.Allow(now_));
  breaker_.Succeeded();
  FailUntilOpen();
  EXPECT_LE(absl::ToDoubleSeconds(PassThePause()), 5);
}

TEST_F(CircuitBreakerTest, AProbeThatToldNothingLetsTheNextOneTryAtOnce) {
  FailUntilOpen();
  PassThePause();
  ASSERT_TRUE(breaker_.Allow(now_));
  breaker_.Undecided();
  EXPECT_EQ(breaker_.state(), State::kOpen);
  EXPECT_TRUE(breaker_.Allow(now_));
  breaker_.Succeeded();
  breaker_.Undecided();
  EXPECT_EQ(breaker_.state(), State::kClosed);
}

TEST_F(CircuitBreakerTest, PausesOfTwoBreakersDiffer) {
  CircuitBreaker other(CircuitBreakerOptions(), /*seed=*/2);
  FailUntilOpen();
  ASSERT_TRUE(other.Allow(now_));
  other.Failed(now_, /*lasting=*/true);
  EXPECT_NE(other.retry_at(), breaker_.retry_at());
}

TEST_F(CircuitBreakerTest, AFailureOfACallFromBeforeItOpenedDoesNotLengthenThePause) {
  FailUntilOpen();
  const absl::Time retry_at = breaker_.retry_at();
  breaker_.Failed(now_ + absl::Seconds(1));
  EXPECT_EQ(breaker_.retry_at(), retry_at);
}

}  // namespace
}  // namespace tidepool
