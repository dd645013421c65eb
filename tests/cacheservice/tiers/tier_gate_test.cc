#include "cacheservice/tiers/tier_gate.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tidepool {
namespace {

using State = CircuitBreaker::State;
using Verdict = TierGate::Verdict;

constexpr uint64_t kBytes = 1 << 20;
constexpr double kMiB = 1 << 20;
constexpr double kFastCaller = 10 * kMiB;  // computes 10 MiB of keys and values in a second
constexpr double kSlowCaller = kMiB / 4;

class TierGateTest : public testing::Test {
 protected:
  // Reads that were made whatever they take.
  void Reads(int count, absl::Duration took) {
    for (int i = 0; i < count; ++i) gate_.Read(Verdict::kRead, 0, kBytes, took, now_);
  }
  void LeaveItOut() {
    Reads(2, absl::Seconds(1));
    ASSERT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kLeaveOut);
  }
  double Pause() { return gate_.Stats(now_).retry_seconds; }
  void PassThePause() { now_ += absl::Seconds(Pause()) + absl::Milliseconds(1); }

  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  TierGate gate_{"disk", absl::Seconds(4), /*seed=*/1};
};

TEST_F(TierGateTest, WhatIsNotKnownIsRead) {
  EXPECT_TRUE(gate_.LetsThrough(kFastCaller, now_));
  EXPECT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kRead);
  gate_.Read(Verdict::kRead, kFastCaller, kBytes, absl::Seconds(1), now_);
  EXPECT_TRUE(gate_.LetsThrough(kFastCaller, now_)) << "one read may have been a pause of the machine";
  const TierReadStats stats = gate_.Stats(now_);
  EXPECT_EQ(stats.reads, 1u);
  EXPECT_EQ(stats.state, State::kClosed);
}

TEST_F(TierGateTest, ATierIsLeftOutByWhoComputesFasterAndByNobodyElse) {
  Reads(2, absl::Seconds(1));  // 1 MiB/s
  EXPECT_FALSE(gate_.LetsThrough(kFastCaller, now_));
  EXPECT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kLeaveOut);
  EXPECT_EQ(gate_.Admit(kSlowCaller, now_), Verdict::kRead);
  EXPECT_TRUE(gate_.LetsThrough(kSlowCaller, now_));
  EXPECT_EQ(gate_.Admit(0, now_), Verdict::kRead) << "recall and sessions";
  EXPECT_TRUE(gate_.Losing(kFastCaller));
  EXPECT_FALSE(gate_.Losing(kSlowCaller));
  EXPECT_FALSE(gate_.Losing(0));
  const TierReadStats stats = gate_.Stats(now_);
  EXPECT_EQ(stats.state, State::kOpen);
  EXPECT_EQ(stats.times_left_out, 1u);
  EXPECT_GE(stats.retry_seconds, 2);
  EXPECT_LE(stats.retry_seconds, 4);
  EXPECT_NEAR(stats.latency_seconds + kBytes / stats.bytes_per_second, 1, 0.05);
}

TEST_F(TierGateTest, LatencyAloneMayLose) {
  for (const int part : {1, 2, 4, 1, 2, 4}) {
    gate_.Read(Verdict::kRead, 0, kBytes / part, absl::Milliseconds(200) + absl::Microseconds(1000 / part), now_);
  }
  EXPECT_FALSE(gate_.LetsThrough(kFastCaller, now_)) << "a MiB in 201 ms, computed in 100";
  EXPECT_NEAR(gate_.Stats(now_).latency_seconds, 0.2, 0.01);
  EXPECT_GT(gate_.Stats(now_).bytes_per_second, 100 * kMiB);
}

TEST_F(TierGateTest, OneProbesAfterThePauseAndPausesDoubleUntilOneWins) {
  LeaveItOut();
  double nominal = 4;
  for (int probe = 0; probe < 9; ++probe) {
    EXPECT_GE(Pause(), nominal / 2) << probe;
    EXPECT_LE(Pause(), nominal) << probe;
    nominal = std::min(2 * nominal, 240.0);
    EXPECT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kLeaveOut);
    PassThePause();
    EXPECT_TRUE(gate_.LetsThrough(kFastCaller, now_));
    ASSERT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kProbe);
    EXPECT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kLeaveOut) << "one at a time";
    EXPECT_FALSE(gate_.LetsThrough(kFastCaller, now_));
    EXPECT_EQ(gate_.Stats(now_).state, State::kHalfOpen);
    gate_.Read(Verdict::kProbe, kFastCaller, kBytes, absl::Seconds(1), now_);
  }
  PassThePause();
  ASSERT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kProbe);
  gate_.Read(Verdict::kProbe, kFastCaller, kBytes, absl::Milliseconds(10), now_);
  EXPECT_EQ(gate_.Stats(now_).state, State::kClosed);
  EXPECT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kRead) << "what was known is forgotten";
  EXPECT_EQ(gate_.Stats(now_).times_left_out, 1u) << "a probe that loses is no new trouble";
  LeaveItOut();
  EXPECT_LE(Pause(), 4) << "from the beginning";
}

TEST_F(TierGateTest, AProbeThatReadNothingSaysNothing) {
  LeaveItOut();
  PassThePause();
  ASSERT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kProbe);
  gate_.Read(Verdict::kProbe, kFastCaller, 0, absl::Seconds(9), now_);
  EXPECT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kProbe) << "the next may try at once";
}

TEST_F(TierGateTest, ReadsThatNobodyCanDoWithoutShowThatItIsFastAgain) {
  LeaveItOut();
  Reads(2, absl::Milliseconds(10));
  EXPECT_TRUE(gate_.LetsThrough(kFastCaller, now_)) << "before the pause is over";
  PassThePause();
  EXPECT_EQ(gate_.Admit(kSlowCaller, now_), Verdict::kRead);
  EXPECT_EQ(gate_.Stats(now_).state, State::kClosed);
}

TEST_F(TierGateTest, ForWhomItIsFastEnoughIsNoProof) {
  LeaveItOut();
  PassThePause();
  EXPECT_EQ(gate_.Admit(kSlowCaller, now_), Verdict::kRead);
  EXPECT_EQ(gate_.Stats(now_).state, State::kOpen);
  EXPECT_EQ(gate_.Admit(kFastCaller, now_), Verdict::kProbe);
}

}  // namespace
}  // namespace tidepool
