#include "worker/kv/row_staging.h"

#include <gtest/gtest.h>

#include <string>

namespace tidepool {
namespace {

std::string RowOf(int32_t position) { return std::string(8, static_cast<char>('a' + position)); }

void Put(RowStaging& staging, int head, int32_t position) { staging.Put(head, position, RowOf(position).data()); }

std::string Find(RowStaging& staging, int head, int32_t position) {
  const char* row = staging.Find(head, position);
  return row == nullptr ? "" : std::string(row, 8);
}

TEST(RowStagingTest, ARowIsFoundInItsHeadOnly) {
  RowStaging staging(2, 8);
  staging.Grow(4);
  Put(staging, 1, 3);
  EXPECT_EQ(Find(staging, 1, 3), RowOf(3));
  EXPECT_TRUE(staging.Has(1, 3));
  EXPECT_FALSE(staging.Has(0, 3));
  EXPECT_EQ(Find(staging, 0, 3), "");
  EXPECT_EQ(Find(staging, 1, 4), "");
}

TEST(RowStagingTest, ARowIsAskedForOnceUntilItCameOrWillNot) {
  RowStaging staging(2, 8);
  staging.Grow(4);
  EXPECT_FALSE(staging.Ask(0, 3)) << "nobody has noted it";
  EXPECT_TRUE(staging.Note(0, 3, false));
  EXPECT_FALSE(staging.Note(0, 3, false));
  EXPECT_TRUE(staging.Note(1, 3, false)) << "another head's";
  EXPECT_FALSE(staging.Has(0, 3));
  EXPECT_TRUE(staging.Ask(0, 3));
  EXPECT_FALSE(staging.Ask(0, 3));
  staging.Forget(0, 3);
  EXPECT_TRUE(staging.Note(0, 3, false));
  Put(staging, 0, 3);
  EXPECT_EQ(Find(staging, 0, 3), RowOf(3));
  EXPECT_FALSE(staging.Note(0, 3, true)) << "it is here";
  EXPECT_FALSE(staging.Ask(0, 3)) << "it came meanwhile";
  staging.Forget(0, 3);
  EXPECT_TRUE(staging.Has(0, 3));
}

TEST(RowStagingTest, ARowThatIsNotedMayBeWantedBeforeItIsAskedFor) {
  RowStaging staging(1, 8);
  EXPECT_TRUE(staging.Note(0, 5, false));
  EXPECT_TRUE(staging.Note(0, 5, true));
  EXPECT_TRUE(staging.Ask(0, 5)) << "once, though it was noted twice";
  EXPECT_FALSE(staging.Ask(0, 5));
  EXPECT_FALSE(staging.Note(0, 5, true)) << "it is under way";
}

TEST(RowStagingTest, NothingIsHeldWithoutCapacity) {
  RowStaging staging(1, 8);
  Put(staging, 0, 1);
  EXPECT_FALSE(staging.Has(0, 1));
  EXPECT_EQ(staging.bytes(), 0);
}

TEST(RowStagingTest, EachHeadHoldsItsCapacityAndNoMore) {
  RowStaging staging(2, 8);
  staging.Grow(3);
  for (int32_t position = 0; position < 10; ++position) {
    Put(staging, 0, position);
    EXPECT_LE(staging.bytes(), 3 * 8);
  }
  int held = 0;
  for (int32_t position = 0; position < 10; ++position) {
    if (!staging.Has(0, position)) continue;
    ++held;
    EXPECT_EQ(Find(staging, 0, position), RowOf(position));
  }
  EXPECT_EQ(held, 3);
  EXPECT_TRUE(staging.Has(0, 9)) << "the newest is there";
}

TEST(RowStagingTest, WhatWasUsedOutlivesWhatWasNot) {
  RowStaging staging(1, 8);
  staging.Grow(3);
  for (int32_t position : {0, 1, 2}) Put(staging, 0, position);
  Find(staging, 0, 0);
  Put(staging, 0, 3);
  EXPECT_TRUE(staging.Has(0, 0));
  EXPECT_FALSE(staging.Has(0, 1));
  Put(staging, 0, 4);
  EXPECT_FALSE(staging.Has(0, 2));
  Put(staging, 0, 5);
  EXPECT_FALSE(staging.Has(0, 0)) << "used once, long ago";
}

TEST(RowStagingTest, ARowIsKeptOnce) {
  RowStaging staging(1, 8);
  staging.Grow(2);
  for (int i = 0; i < 5; ++i) Put(staging, 0, 7);
  EXPECT_EQ(staging.bytes(), 8);
}

TEST(RowStagingTest, GrowingKeepsWhatIsThere) {
  RowStaging staging(1, 8);
  staging.Grow(2);
  for (int32_t position : {0, 1, 2}) Put(staging, 0, position);
  staging.Grow(4);
  for (int32_t position : {3, 4}) Put(staging, 0, position);
  for (int32_t position : {1, 2, 3, 4}) EXPECT_EQ(Find(staging, 0, position), RowOf(position));
}

TEST(RowStagingTest, ClearForgetsTheRowsNotTheCapacity) {
  RowStaging staging(1, 8);
  staging.Grow(4);
  for (int32_t position : {0, 1, 2}) Put(staging, 0, position);
  staging.Clear();
  EXPECT_EQ(staging.bytes(), 0);
  EXPECT_FALSE(staging.Has(0, 1));
  Put(staging, 0, 5);
  EXPECT_EQ(Find(staging, 0, 5), RowOf(5));
}

TEST(RowStagingTest, WhatOneGivesBackTheNextTakes) {
  const auto memory = std::make_shared<ChunkMemory>(RowStaging::ChunkBytes(8));
  const char* row = nullptr;
  {
    RowStaging staging(1, 8, memory);
    staging.Grow(4);
    Put(staging, 0, 0);
    row = staging.Find(0, 0);
    RowStaging beside(1, 8, memory);
    beside.Grow(4);
    Put(beside, 0, 1);
    EXPECT_NE(beside.Find(0, 1), row);
    EXPECT_EQ(Find(staging, 0, 0), RowOf(0));
  }
  RowStaging staging(1, 8, memory);
  staging.Grow(4);
  Put(staging, 0, 2);
  Put(staging, 0, 3);
  staging.Clear();
  Put(staging, 0, 4);
  const char* next = staging.Find(0, 4);
  EXPECT_TRUE(next == row || next == row + RowStaging::ChunkBytes(8) || next == row - RowStaging::ChunkBytes(8));
}

}  // namespace
}  // namespace tidepool
