#include "worker/engine/step_pace.h"

#include <gtest/gtest.h>

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

TEST(StepPaceTest, PromptsShareAStepEqually) {
  EXPECT_EQ(PromptShare(256, 1, 0), 256);
  int room = 256;
  for (size_t i = 0; i < 3; ++i) {
    const int share = PromptShare(room, 3, i);
    EXPECT_NEAR(share, 256 / 3, 1) << i;
    room -= share;
  }
  EXPECT_EQ(room, 0);
  EXPECT_EQ(PromptShare(200, 3, 1), 100) << "what the first did not need is the others'";
}

TEST(StepPaceTest, NoMoreThanEightPromptsShareAndNoneTakesAFewTokens) {
  EXPECT_EQ(PromptShare(2048, 20, 0), 256);
  EXPECT_EQ(PromptShare(256, 20, 7), 256) << "the last of the eight takes the rest";
  EXPECT_EQ(PromptShare(100, 20, 12), 100) << "if any is left behind them";
  EXPECT_EQ(PromptShare(64, 8, 0), 32);
  EXPECT_EQ(PromptShare(13, 8, 0), 13);
}

}  // namespace
}  // namespace tidepool
