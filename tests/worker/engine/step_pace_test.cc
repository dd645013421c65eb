#include "worker/engine/step_pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace tidepool {
namespace {

TEST(StepPaceTest, NothingIsHeldBackWithoutDecodingSequencesOrMeasurements) {
  StepPace pace(3, 256);
  EXPECT_EQ(pace.PromptTokens(0), 256);
  EXPECT_EQ(pace.PromptTokens(4), 256);
  pace.Observe(4, 0, absl::Milliseconds(4));
  EXPECT_EQ(pace.PromptTokens(4), 256) << "what prompts cost is not known yet";
  pace.Observe(0, 256, absl::Milliseconds(64));
  EXPECT_EQ(pace.PromptTokens(0), 256);
}

TEST(StepPaceTest, TheFirstStepAfterIdlenessIsShort) {
  StepPace pace(3, 256);
  pace.Idle();
  EXPECT_EQ(pace.PromptTokens(0), 64);
  pace.Observe(0, 64, absl::Milliseconds(16));
  EXPECT_EQ(pace.PromptTokens(0), 256);
  StepPace small(3, 16);
  small.Idle();
  EXPECT_EQ(small.PromptTokens(0), 16);
}

TEST(StepPaceTest, AStepTakesSoManyTimesWhatDecodingTakes) {
  StepPace pace(3, 256);
  pace.Observe(4, 0, absl::Milliseconds(4));
  pace.Observe(0, 256, absl::Milliseconds(64));  // a quarter of a millisecond for each token
  EXPECT_EQ(pace.PromptTokens(4), 16)
      << "8 ms of prompts beside 4 ms of decoding, where few at once cost twice as much";
  for (int i = 0; i < 100; ++i) pace.Observe(4, 16, absl::Milliseconds(8));  // no, they do not
  EXPECT_NEAR(pace.PromptTokens(4), 32, 1);
  pace.Observe(0, 256, absl::Milliseconds(16));
  EXPECT_NEAR(pace.PromptTokens(4), 32, 1) << "large pieces say nothing about small ones";
}

TEST(StepPaceTest, StepsThatAPromptSlowsAsItComesDoNotSetItsPace) {
  StepPace pace(3, 256);
  for (int i = 0; i < 100; ++i) pace.Observe(4, 0, absl::Milliseconds(4));
  pace.Observe(0, 256, absl::Milliseconds(64));
  for (int i = 0; i < 4; ++i) pace.Observe(4, 0, absl::Milliseconds(12));
  EXPECT_NEAR(pace.PromptTokens(4), 16, 4);
  for (int i = 0; i < 200; ++i) pace.Observe(4, 0, absl::Milliseconds(12));
  EXPECT_NEAR(pace.PromptTokens(4), 48, 1) << "longer answers do";
  for (int i = 0; i < 20; ++i) pace.Observe(4, 0, absl::Milliseconds(4));
  EXPECT_NEAR(pace.PromptTokens(4), 16, 1);
}

TEST(StepPaceTest, PromptsGoOnHoweverSlowTheyAre) {
  StepPace pace(1.5, 256);
  pace.Observe(1, 0, absl::Milliseconds(1));
  pace.Observe(0, 256, absl::Seconds(10));
  EXPECT_EQ(pace.PromptTokens(1), 2);
  StepPace small_chunks(1.5, 1);
  small_chunks.Observe(1, 0, absl::Milliseconds(1));
  small_chunks.Observe(0, 256, absl::Seconds(10));
  EXPECT_EQ(small_chunks.PromptTokens(1), 1);
}

TEST(StepPaceTest, TurnsWithRecallSayNothingAboutPrompts) {
  StepPace pace(3, 256);
  pace.Observe(4, 0, absl::Milliseconds(4));
  pace.Observe(0, 256, absl::Milliseconds(64));
  for (int i = 0; i < 100; ++i) pace.Observe(4, 1, absl::Milliseconds(200));
  EXPECT_EQ(pace.PromptTokens(4), 16);
}

TEST(StepPaceTest, ZeroHoldsNothingBack) {
  StepPace pace(0, 256);
  pace.Observe(4, 0, absl::Milliseconds(4));
  pace.Observe(0, 256, absl::Milliseconds(640));
  EXPECT_EQ(pace.PromptTokens(4), 256);
}

using Shares = std::vector<int32_t>;

TEST(StepPaceTest, PromptsShareAStepEqually) {
  EXPECT_EQ(PromptShares(256, {1000}), Shares({256}));
  EXPECT_EQ(PromptShares(256, {1000, 5000, 3000}), Shares({86, 85, 85}));
  EXPECT_EQ(PromptShares(256, {56, 5000, 3000}), Shares({56, 100, 100}))
      << "what the first does not need is the others'";
  EXPECT_EQ(PromptShares(256, {100, 20}), Shares({100, 20}));
}

TEST(StepPaceTest, NoMoreThanEightPromptsShareAndNoneTakesAFewTokens) {
  Shares left;
  for (int i = 0; i < 20; ++i) left.push_back(1000 * (i + 1));
  Shares shares(20, 0);
  std::fill_n(shares.begin(), 8, 256);
  EXPECT_EQ(PromptShares(2048, left), shares);
  shares.assign(20, 0);
  shares[0] = shares[1] = 32;
  EXPECT_EQ(PromptShares(64, left), shares);
  shares[0] = 13;
  shares[1] = 0;
  EXPECT_EQ(PromptShares(13, left), shares);
  std::fill_n(left.begin(), 8, 10);
  std::fill_n(shares.begin(), 8, 10);
  shares[8] = 20;
  EXPECT_EQ(PromptShares(100, left), shares) << "what is left behind the eight";
}

TEST(StepPaceTest, PromptsThatAreNearToEachOtherEndTogether) {
  EXPECT_EQ(PromptShares(256, {936, 1000, 1000, 1000}), Shares({16, 80, 80, 80}));
  EXPECT_EQ(PromptShares(96, {1000, 980, 900}), Shares({58, 38, 0}));
  EXPECT_EQ(PromptShares(256, {400, 800}), Shares({128, 128})) << "not near";
  EXPECT_EQ(PromptShares(40, {930, 1000}), Shares({32, 8})) << "too little for both: the first goes on";
  // Whatever they are ahead by in the beginning.
  Shares left = {1024, 1024, 1024, 1024, 1024, 1024, 1024, 1000};
  left[0] -= 64;
  for (int step = 0; left[1] > 0; ++step) {
    const Shares shares = PromptShares(256, left);
    int32_t taken = 0;
    for (size_t i = 0; i < left.size(); ++i) {
      ASSERT_LE(shares[i], left[i]);
      taken += shares[i];
      left[i] -= shares[i];
    }
    ASSERT_TRUE(taken == 256 || left[1] == 0);
    if (step < 3) continue;
    ASSERT_LE(*std::max_element(left.begin(), left.end()), *std::min_element(left.begin(), left.end()) + 1);
  }
  EXPECT_EQ(left, Shares(8, 0));
}

}  // namespace
}  // namespace tidepool
