#include "worker/kv/joint_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace tidepool {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::FloatEq;
using testing::IsEmpty;

constexpr Chooser kAlone = Chooser::kHead, kTogether = Chooser::kHeadsTogether, kBelow = Chooser::kLayerBelow;

TEST(ChoosersTest, FilterLayersChooseForThoseAboveThem) {
  RecallSpec spec;
  EXPECT_THAT(ChoosersOf(spec, 3), Each(kAlone));
  spec.select_scope = SelectScope::kLayer;
  EXPECT_THAT(ChoosersOf(spec, 3), Each(kTogether));
  spec.select_scope = SelectScope::kFilter;
  spec.filter_layers = {4, 1, 4};
  EXPECT_THAT(ChoosersOf(spec, 6), ElementsAre(kAlone, kTogether, kBelow, kBelow, kTogether, kBelow));
}

TEST(ChoosersTest, FilterLayersAreThoseOfOmniKvUnlessSaid) {
  RecallSpec spec;
  EXPECT_THAT(FilterLayers(spec, 32), ElementsAre(2, 8, 18));
  EXPECT_THAT(FilterLayers(spec, 30), ElementsAre(2, 7, 16));
  for (int layers = 1; layers <= 40; ++layers) {
    for (const int layer : FilterLayers(spec, layers)) EXPECT_LT(layer, layers);
  }
}

RowScores Scores(float mass, std::vector<float> weight, std::vector<RecallState> state) {
  RowScores scores;
  scores.positions = static_cast<int32_t>(weight.size());
  scores.mass = mass;
  scores.weight = std::move(weight);
  scores.state = std::move(state);
  return scores;
}

TEST(JointSharesTest, AreTheMeanOfTheHeadsAttentionAndAKeptRowHasNone) {
  using enum RecallState;
  JointShares shares;
  EXPECT_THAT(shares.Mean(), IsEmpty());
  shares.Add(Scores(0.5f, {0.5f, 0.5f, 0}, {kCandidate, kSlot, kOut}));
  shares.Add(Scores(0.1f, {0.9f, 0.4f, 0.1f}, {kOut, kCandidate, kCandidate}));
  for (int twice = 0; twice < 2; ++twice) {
    EXPECT_THAT(shares.Mean(), ElementsAre(FloatEq(0.125f), FloatEq(0.145f), FloatEq(0.005f)));
  }
  shares.Clear();
  EXPECT_THAT(shares.Mean(), IsEmpty());
}

}  // namespace
}  // namespace tidepool
