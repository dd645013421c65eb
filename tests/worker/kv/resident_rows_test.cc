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

TEST(HeadRowsTest, RemovingManyIsRemovingEachOfThem) {
  PagePool pool(8, 1024);
  std::vector<int32_t> gone;
  for (int32_t i = 0; i < 30; ++i) gone.push_back(i * 7 % 60);
  HeadRows together, one_by_one;
  for (HeadRows* head : {&together, &one_by_one}) {
    for (int32_t i = 0; i < 60; ++i) head->Add(pool, 10 * i, i % 3 == 0 ? RowKind::kRecalled : RowKind::kKept);
  }
  together.RemoveAll(gone);
  for (int32_t slot : gone) one_by_one.Remove(slot);
  EXPECT_EQ(Positions(together), Positions(one_by_one));
  EXPECT_EQ(together.recalled_rows(), one_by_one.recalled_rows());
  EXPECT_FALSE(together.in_order());
  for (int32_t i = 0; i < 30; ++i) {
    EXPECT_EQ(together.Add(pool, 1000 + i, RowKind::kKept), one_by_one.Add(pool, 1000 + i, RowKind::kKept)) << i;
  }
  together.Clear(pool);
  one_by_one.Clear(pool);
}

TEST(HeadRowsTest, ReplacingIsRemovingAndAddingInTheSameSlot) {
  PagePool pool(8, 1024);
  HeadRows head;
  std::mt19937 random(9);
  std::map<int32_t, int32_t> slot_of;
  for (int32_t i = 0; i < 40; ++i) slot_of[10 * i] = head.Add(pool, 10 * i, RowKind::kRecalled);
  for (int round = 0; round < 400; ++round) {
    auto at = slot_of.begin();
    std::advance(at, random() % slot_of.size());
    const auto position = static_cast<int32_t>(random() % 500);
    if (slot_of.contains(position)) continue;
    const int32_t slot = at->second;
    head.Replace(slot, position);
    slot_of.erase(at);
    slot_of[position] = slot;
    ASSERT_EQ(head.recalled_rows(), 40);
    ASSERT_EQ(head.rows(), 40);
    ASSERT_FALSE(head.in_order());
    int32_t i = 0;
    for (const auto& [expected, its_slot] : slot_of) {
      ASSERT_EQ(head.position(head.order()[i]), expected);
      ASSERT_EQ(head.order()[i++], its_slot);
    }
  }
  head.Clear(pool);
}

TEST(HeadRowsTest, RenumberingPutsRowsInOrderAndFreesPages) {
  PagePool pool(8, 1024);
  HeadRows head;
  head.KeepColumnSums(2, true);
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
    EXPECT_EQ(head.column_sums()[0][i], static_cast<float>(4 * i + 1));
    EXPECT_EQ(head.column_sums()[1][i], static_cast<float>(3 * (4 * i + 1)));
  }
  head.Clear(pool);
}

TEST(HeadRowsTest, StepSumsStayWithTheirRowsBesideColumnSums) {
  PagePool pool(8, 1024);
  HeadRows head;
  head.KeepColumnSums(1, false);
  for (int32_t position = 0; position < 40; ++position) head.Add(pool, position, RowKind::kKept);
  EXPECT_FALSE(head.adds_steps_to_column_sums());
  EXPECT_FALSE(head.keeps_step_sums());
  head.KeepStepSums();
  head.CountSummedStep();
  for (int32_t slot : head.order()) {
    head.column_sums()[0][slot] = static_cast<float>(head.position(slot));
    head.step_sums()[slot] = 0.5f * static_cast<float>(head.position(slot));
  }
  head.RemoveAll({0, 3, 4, 10, 20, 39});
  head.Renumber(pool);
  for (int32_t slot : head.order()) {
    EXPECT_EQ(head.column_sums()[0][slot], static_cast<float>(head.position(slot)));
    EXPECT_EQ(head.step_sums()[slot], 0.5f * static_cast<float>(head.position(slot)));
  }
  head.Remove(head.Find(30));
  EXPECT_EQ(head.step_sums()[head.Add(pool, 40, RowKind::kKept)], 0);  // of a slot used again
  EXPECT_EQ(head.summed_steps(), 1);
  head.KeepStepSums();
  EXPECT_EQ(head.summed_steps(), 0);
  EXPECT_EQ(head.step_sums()[head.Find(38)], 0);
  head.DropStepSums();
  EXPECT_FALSE(head.keeps_step_sums());
  EXPECT_EQ(head.column_sums().size(), 1u);
  EXPECT_EQ(head.column_sums()[0][head.Find(38)], 38);
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

// Bytes of a slot page and of packed pages.
constexpr PageBytes kBytes = {4096, 4224, 2560, 1536};

std::vector<int32_t> SlotsOf(const HeadRows& head, int32_t first, int32_t count) {
  std::vector<int32_t> slots;
  for (int32_t position = first; position < first + count; ++position) slots.push_back(head.Find(position));
  return slots;
}

TEST(HeadRowsTest, PackedRowsKeepTheirPositionsAndTakeTheirOwnBytes) {
  PagePool pool(16, kBytes);
  HeadRows head;
  head.KeepColumnSums(2, true);
  for (int32_t position = 0; position < 100; ++position) {
    head.column_sums()[1][head.Add(pool, position, RowKind::kKept)] = static_cast<float>(position);
  }
  EXPECT_EQ(head.bytes(pool), 7 * 4096);
  head.TakeForGroups(SlotsOf(head, 2, 64));
  EXPECT_EQ(head.rows(), 36);
  head.Renumber(pool);
  EXPECT_EQ(pool.used_bytes(), 3 * 4096) << "pages are free before new ones are taken";
  EXPECT_EQ(head.AddGroups(pool, KvPrecision::kKivi2), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(pool.used_bytes(), 3 * 4096 + 2 * 1536);
  EXPECT_EQ(head.bytes(pool), pool.used_bytes());
  EXPECT_EQ(head.packed_rows(), 64);
  ASSERT_EQ(head.rows(), 100);
  for (int32_t position = 0; position < 100; ++position) {
    const int32_t slot = head.Find(position);
    EXPECT_EQ(head.order()[position], slot);
    EXPECT_EQ(head.is_packed(slot), position >= 2 && position < 66);
    EXPECT_EQ(head.column_sums()[1][slot], static_cast<float>(position));
  }
  EXPECT_EQ(head.groups()[1].founders.front(), 34);
  head.Clear(pool);
  EXPECT_EQ(pool.used_bytes(), 0);
}

TEST(HeadRowsTest, HolesOfAGroupTakeNoNewRows) {
  PagePool pool(16, kBytes);
  HeadRows head;
  for (int32_t position = 0; position < 32; ++position) head.Add(pool, position, RowKind::kKept);
  head.TakeForGroups(SlotsOf(head, 0, 32));
  head.Renumber(pool);
  head.AddGroups(pool, KvPrecision::kInt8);
  EXPECT_EQ(pool.used_bytes(), 4224);
  for (int32_t position = 0; position < 31; ++position) head.Remove(head.Find(position));
  const int32_t slot = head.Add(pool, 40, RowKind::kKept);
  EXPECT_FALSE(head.is_packed(slot));
  EXPECT_EQ(pool.used_bytes(), 4224 + 4096);
  head.FreeEmptyGroups(pool);
  EXPECT_EQ(pool.used_bytes(), 4224 + 4096) << "one row is left";
  head.Remove(head.Find(31));
  head.FreeEmptyGroups(pool);
  EXPECT_EQ(pool.used_bytes(), 4096);
  EXPECT_EQ(head.bytes(pool), 4096);
  EXPECT_EQ(Positions(head), std::vector<int32_t>{40});
  head.Renumber(pool);
  EXPECT_TRUE(head.in_order());
  head.Clear(pool);
}

TEST(HeadRowsTest, ADissolvedGroupIsPlainRowsThatCountAsMixtures) {
  PagePool pool(16, kBytes);
  HeadRows head;
  for (int32_t position = 0; position < 40; ++position) head.Add(pool, position, RowKind::kKept);
  head.TakeForGroups(SlotsOf(head, 0, 32));
  head.Renumber(pool);
  head.AddGroups(pool, KvPrecision::kKivi4);
  for (int32_t position = 0; position < 29; ++position) head.Remove(head.Find(position));
  const std::vector<int32_t> slots = head.DissolveGroup(pool, 0);
  ASSERT_EQ(slots.size(), 3u);
  EXPECT_EQ(head.packed_rows(), 0);
  EXPECT_TRUE(head.groups().empty());
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(head.position(slots[i]), 29 + i);
    EXPECT_EQ(head.merged()[slots[i]], 1);
    EXPECT_FALSE(head.is_packed(slots[i]));
  }
  EXPECT_EQ(pool.used_bytes(), 4096) << "they fit beside the others";
  head.Clear(pool);
  EXPECT_EQ(pool.used_bytes(), 0);
}

TEST(HeadRowsTest, AGroupIsRestoredWithTheRowsThatAreLeft) {
  PagePool pool(16, kBytes);
  HeadRows head;
  head.KeepColumnSums(1, true);
  head.Add(pool, 50, RowKind::kRecalled);
  std::vector<int32_t> founders;
  for (int32_t i = 0; i < kGroupTokens; ++i) founders.push_back(2 * i);
  const std::vector<int32_t> resident = {4, 20, 62};
  head.RestoreGroup(pool, KvPrecision::kKivi2, founders, resident);
  EXPECT_EQ(Positions(head), (std::vector<int32_t>{4, 20, 50, 62}));
  EXPECT_EQ(head.groups()[0].rows, 3);
  EXPECT_EQ(head.groups()[0].founders, founders);
  EXPECT_EQ(head.Find(20), head.groups()[0].first_slot + 10);
  EXPECT_EQ(head.recalled_rows(), 1);
  head.Clear(pool);
  EXPECT_EQ(pool.used_bytes(), 0);
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
