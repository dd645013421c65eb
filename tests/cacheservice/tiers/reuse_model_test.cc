#include "cacheservice/tiers/reuse_model.h"

#include <gtest/gtest.h>

namespace tidepool {
namespace {

constexpr int kRounds = 40;

void LearnAll(ReuseModel* model) {
  for (int i = 0; i < ReuseModel::kClasses; ++i) model->Learn();
}

// `share` of the blocks come back at `age`, the others are watched for ten times as long.
void Watch(ReuseModel* model, uint8_t cls, uint64_t age, double share) {
  const int back = static_cast<int>(1000 * share);
  for (int i = 0; i < 1000; ++i) {
    model->Waited(cls, 0, i < back ? age : 10 * age);
    if (i < back) model->Returned(cls, age);
  }
}

TEST(ReuseModelTest, BeforeAnythingWasSeenItIsLru) {
  const ReuseModel model;
  int last = model.Rank(0, 4);
  for (uint64_t age = 16; age < 1'000'000; age *= 4) {
    EXPECT_LT(model.Rank(0, age), last) << age;
    EXPECT_EQ(model.Rank(0, age), model.Rank(63, age)) << "all classes are alike";
    last = model.Rank(0, age);
  }
}

TEST(ReuseModelTest, ClassesAreOrderedByReferencesAndByGrowth) {
  EXPECT_EQ(ReuseModel::ClassOf(1, 0), 0);
  EXPECT_EQ(ReuseModel::ClassOf(1, 1), 1);
  EXPECT_EQ(ReuseModel::ClassOf(1, 2), ReuseModel::ClassOf(1, 3));
  EXPECT_EQ(ReuseModel::ClassOf(1, 64), 7);
  EXPECT_EQ(ReuseModel::ClassOf(1, ~uint32_t{0}), 7);
  EXPECT_EQ(ReuseModel::ClassOf(2, 0), 8);
  EXPECT_EQ(ReuseModel::ClassOf(~uint32_t{0}, ~uint32_t{0}), ReuseModel::kClasses - 1);
}

TEST(ReuseModelTest, TheClassThatComesBackMoreOftenIsWorthMore) {
  ReuseModel model;
  for (int round = 0; round < kRounds; ++round) {
    Watch(&model, 3, 1000, 0.8);
    Watch(&model, 5, 1000, 0.2);
    LearnAll(&model);
  }
  for (const uint64_t age : {0, 100, 900}) EXPECT_GT(model.Rank(3, age), model.Rank(5, age)) << age;
}

TEST(ReuseModelTest, WorthGrowsTowardsThePauseAfterWhichBlocksComeBackAndEndsBehindIt) {
  ReuseModel model;
  for (int round = 0; round < kRounds; ++round) {
    Watch(&model, 3, 1000, 0.5);
    LearnAll(&model);
  }
  EXPECT_GT(model.Rank(3, 900), model.Rank(3, 10)) << "LRU would say the opposite";
  EXPECT_GT(model.Rank(3, 10), model.Rank(3, 3000)) << "who has not come back by now does not";
}

TEST(ReuseModelTest, WhatWasSeenLongAgoFades) {
  ReuseModel model;
  for (int round = 0; round < kRounds; ++round) {
    Watch(&model, 3, 1000, 0.8);
    Watch(&model, 5, 1000, 0.2);
    LearnAll(&model);
  }
  for (int round = 0; round < 3 * kRounds; ++round) {
    Watch(&model, 3, 1000, 0.2);
    Watch(&model, 5, 1000, 0.8);
    LearnAll(&model);
  }
  EXPECT_LT(model.Rank(3, 100), model.Rank(5, 100));
}

TEST(ReuseModelTest, AnyAgeHasARank) {
  ReuseModel model;
  model.Waited(63, 0, ~uint64_t{0});
  model.Returned(63, ~uint64_t{0});
  LearnAll(&model);
  EXPECT_LT(model.Rank(63, ~uint64_t{0}), model.Rank(0, 1));
}

}  // namespace
}  // namespace tidepool
