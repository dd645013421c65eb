// The threshold and the choice of rows together, as the engine uses them (recall.md sections 6 and 14.4).
#include "policies/recall/ema_threshold.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "policies/recall/select_rows.h"

namespace tidepool {
namespace {

constexpr float kBeta = 0.7f;

TEST(EmaThresholdTest, StartsAtTheFirstValueAndFollowsWithBeta) {
  EmaThreshold threshold;
  threshold.Update(0.5f, kBeta);
  EXPECT_FLOAT_EQ(threshold.theta, 0.5f);
  threshold.Update(1.0f, kBeta);
  EXPECT_FLOAT_EQ(threshold.theta, 0.65f);
  threshold.Update(1.0f, 0.0f);
  EXPECT_FLOAT_EQ(threshold.theta, 1.0f);
}

// One (layer, kv head): installs what a step wanted, taking free slots first and victims then.
struct Head {
  int slots;
  std::vector<RecallState> state;
  std::vector<float> average;
  EmaThreshold threshold;

  Head(int candidates, int recall_slots)
      : slots(recall_slots), state(candidates, RecallState::kCandidate), average(candidates) {}

  // Rows recalled by one asynchronous step.
  std::vector<int32_t> Step(const std::vector<float>& weight) {
    std::vector<SlotRow> held;
    for (size_t i = 0; i < weight.size(); ++i) {
      if (state[i] != RecallState::kSlot) continue;
      average[i] = kBeta * average[i] + (1 - kBeta) * weight[i];
      held.push_back({static_cast<int32_t>(i), average[i]});
    }
    const float theta = threshold.started ? threshold.theta : 0.0f;
    TopRows top;
    FindTopRows({weight, state}, slots, {}, top);
    const RecallChoice choice = ChooseAbove({weight, state}, held, top, theta, slots, slots / 2);
    threshold.Update(top.kth, kBeta);
    size_t victim = 0;
    for (int32_t row : choice.wanted) {
      if (std::count(state.begin(), state.end(), RecallState::kSlot) == slots) {
        EXPECT_LT(victim, choice.victims.size());
        state[choice.victims[victim++]] = RecallState::kCandidate;
      }
      state[row] = RecallState::kSlot;
      average[row] = weight[row];
    }
    return choice.wanted;
  }
};

std::vector<float> Peaked(int candidates, int first, int count) {
  std::vector<float> weight(candidates);
  for (int i = 0; i < candidates; ++i) {
    weight[i] = i >= first && i < first + count ? 0.1f - 1e-4f * static_cast<float>(i - first)
                                                : 1e-5f * static_cast<float>(i + 1);
  }
  return weight;
}

TEST(EmaThresholdTest, ConstantWeightsAskForNothingAfterWarmUp) {
  Head head(100, 8);
  const std::vector<float> weight = Peaked(100, 20, 8);
  EXPECT_EQ(head.Step(weight), (std::vector<int32_t>{20, 21, 22, 23}));  // at most half of the slots a step
  head.Step(weight);
  for (int step = 0; step < 20; ++step) EXPECT_TRUE(head.Step(weight).empty());
  for (int i = 20; i < 27; ++i) EXPECT_TRUE(head.state[i] == RecallState::kSlot) << i;
}

TEST(EmaThresholdTest, AStepChangeIsAnsweredInTheStepThatShowsIt) {
  Head head(100, 8);
  for (int step = 0; step < 10; ++step) head.Step(Peaked(100, 20, 8));
  const std::vector<int32_t> wanted = head.Step(Peaked(100, 60, 4));
  EXPECT_EQ(wanted, (std::vector<int32_t>{60, 61, 62, 63}));
  for (int32_t row : wanted) EXPECT_TRUE(head.state[row] == RecallState::kSlot);
}

TEST(EmaThresholdTest, WeightsBelowTheRunningThresholdAreNotWorthARequest) {
  Head head(100, 8);
  for (int step = 0; step < 10; ++step) head.Step(Peaked(100, 20, 8));
  std::vector<float> weight = Peaked(100, 20, 8);
  for (float& w : weight) w *= 0.01f;  // the queries turn to the kept rows, the order is another
  std::swap(weight[20], weight[50]);
  EXPECT_TRUE(head.Step(weight).empty());
}

}  // namespace
}  // namespace tidepool
