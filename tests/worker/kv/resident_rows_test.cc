#include "worker/kv/resident_rows.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "base/limits.h"

namespace tidepool {
namespace {

std::vector<int32_t> Positions(const HeadRows& head) {
  std::vector<int32_t> positions;
  for (int32_t slot : head.order()) positions.push_back(head.position(slot));
  return positions;
}

TEST(HeadRowsTest, OrderIsByPositionWhateverTheSlots) {
  PagePool pool(4, 1024);
  HeadRows head;
  for (int32_t position : {5, 9, 2, 30, 7}) head.Add(pool, position, RowKind::kKept);
  EXPECT_EQ(Positions(head), (std::vector<int32_t>{2, 5, 7, 9, 30}));
  EXPECT_FALSE(head.in_order());
  EXPECT_EQ(head.Find(9), 1);
  EXPECT_EQ(head.Find(8), -1);
  EXPECT_EQ(pool.used(), 1);
  head.Clear(pool);
  EXPECT_EQ(pool.used(), 0);
}

TEST(HeadRowsTest, AFreedSlotIsTheNextOneTaken) {
  PagePool pool(4, 1024);
  HeadRows head;
  for (int32_t position = 0; position < kPageSlots; ++position) head.Add(pool, position, RowKind::kKept);
  EXPECT_TRUE(head.in_order());
  head.Remove(3);
  EXPECT_EQ(head.Add(pool, 100, RowKind::kRecalled), 3);
  EXPECT_EQ(head.recalled_rows(), 1);
  EXPECT_EQ(pool.used(), 1) << "no second page";
  EXPECT_FALSE(head.in_order());
  head.Remove(3);
  EXPECT_EQ(head.recalled_rows(), 0);
  head.Clear(pool);
}

TEST(HeadRowsTest, RenumberingPutsRowsInOrderAndFreesPages) {
  PagePool pool(8, 1024);
  HeadRows head;
  head.KeepColumnSums(2);
  for (int32_t position = 0; position < 60; ++position) {
    const int32_t slot = head.Add(pool, position, RowKind::kKept);
    head.column_sums()[0][slot] = static_cast<float>(position);
    head.column_sums()[1][slot] = static_cast<float>(3 * position);
  }
  for (int32_t position = 0; position < 60; ++position) {
    if (position % 4 != 1) head.Remove(head.Find(position));
  }
  EXPECT_EQ(pool.used(), 4);
  head.Renumber(pool);
  EXPECT_EQ(pool.used(), 1);
  EXPECT_TRUE(head.in_order());
  ASSERT_EQ(head.rows(), 15);
  for (int32_t i = 0; i < 15; ++i) {
    EXPECT_EQ(head.position(i), 4 * i + 1);
    EXPECT_EQ(head.ColumnSum(i), 2.0f * static_cast<float>(4 * i + 1)) << "mean over the group";
  }
  head.Clear(pool);
}

TEST(HeadRowsTest, AgreesWithAMapUnderRandomUse) {
  PagePool pool(64, 1024);
  HeadRows head;
  std::map<int32_t, RowKind> model;
  std::mt19937 random(7);
  for (int step = 0; step < 5000; ++step) {
    const int32_t position = static_cast<int32_t>(random() % 400);
    if (model.contains(position)) {
      head.Remove(head.Find(position));
      model.erase(position);
    } else {
      const RowKind kind = random() % 2 == 0 ? RowKind::kKept : RowKind::kRecalled;
      head.Add(pool, position, kind);
      model[position] = kind;
    }
    if (step % 500 == 0) head.Renumber(pool);
    ASSERT_EQ(head.rows(), static_cast<int32_t>(model.size()));
    int recalled = 0;
    auto expected = model.begin();
    for (int32_t slot : head.order()) {
      ASSERT_EQ(head.position(slot), expected->first);
      ASSERT_EQ(head.kind(slot), expected->second);
      recalled += expected->second == RowKind::kRecalled;
      ++expected;
    }
    ASSERT_EQ(head.recalled_rows(), recalled);
    if (head.in_order()) {
      for (int32_t i = 0; i < head.rows(); ++i) ASSERT_EQ(head.order()[i], i);
    }
  }
  head.Clear(pool);
  EXPECT_EQ(pool.used(), 0);
}

TEST(SequenceRowsTest, GivesItsPagesBackWhenItGoes) {
  PagePool pool(100, 1024);
  {
    SequenceRows rows(&pool, 3, 2);
    rows.Extend(0, 20);
    EXPECT_EQ(pool.used(), 12);
    EXPECT_EQ(rows.total_rows(), 120);
    EXPECT_EQ(rows.longest_head(), 20);
    rows.Extend(20, 1);
    EXPECT_EQ(rows.head(2, 1).position(rows.head(2, 1).order().back()), 20);
  }
  EXPECT_EQ(pool.used(), 0);
}

}  // namespace
}  // namespace tidepool
