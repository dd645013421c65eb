// In which order attention is told the rows of a head: by position, or as they lie.
#include "worker/backend/cpu/head_pages.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace tidepool {
namespace {

class HeadPagesTest : public testing::Test {
 protected:
  HeadPagesTest() {
    memory_ = *PageMemory::Create(layout_, kPages);
    for (int i = 0; i < kKvPrecisions; ++i) packed_.emplace_back(static_cast<KvPrecision>(i), layout_.head_dim);
  }
  // Rows at positions 0, 10, 20, ...
  void Fill(HeadRows& head, int rows) {
    for (int i = 0; i < rows; ++i) head.Add(pool_, 10 * i, RowKind::kKept);
  }
  AttentionTask TaskOf(const HeadRows& head, bool by_slot) {
    pages_.Find(*memory_, packed_, head, by_slot);
    AttentionTask task;
    pages_.SetIn(head, task);
    return task;
  }
  static std::vector<int32_t> OrderOf(const AttentionTask& task) {
    return task.order == nullptr ? std::vector<int32_t>() : std::vector<int32_t>(task.order, task.order + task.rows);
  }

  static constexpr int32_t kPages = 16;
  KvLayout layout_{.layers = 1, .kv_heads = 1, .head_dim = 64, .type = KvType::kF16};
  std::unique_ptr<PageMemory> memory_;
  std::vector<PackedPage> packed_;
  PagePool pool_{kPages, PageMemory::BytesOf(layout_)};
  HeadPages pages_;
};

TEST_F(HeadPagesTest, RowsWithoutHolesAreToldAsTheyLie) {
  HeadRows head;
  Fill(head, 20);
  head.Replace(/*slot=*/3, /*position=*/195);
  const AttentionTask by_position = TaskOf(head, /*by_slot=*/false);
  EXPECT_EQ(OrderOf(by_position), std::vector<int32_t>(head.order().begin(), head.order().end()));
  EXPECT_EQ(by_position.slots, head.slots());
  const AttentionTask by_slot = TaskOf(head, /*by_slot=*/true);
  EXPECT_EQ(by_slot.order, nullptr);
  EXPECT_EQ(by_slot.rows, 20);
  EXPECT_EQ(by_slot.slots, 20);
  head.Clear(pool_);
}

TEST_F(HeadPagesTest, HolesAreToldAndThoseAtTheEndLeftOut) {
  HeadRows head;
  Fill(head, 20);
  head.Replace(/*slot=*/18, /*position=*/5);
  for (const int32_t slot : {2, 7, 19}) head.Remove(slot);
  const AttentionTask task = TaskOf(head, /*by_slot=*/true);
  EXPECT_EQ(task.order, nullptr);
  EXPECT_EQ(task.rows, 19);
  EXPECT_EQ(task.slots, 19);
  EXPECT_EQ(std::vector<int32_t>(task.holes, task.holes + task.hole_count), (std::vector<int32_t>{7, 2}));
  EXPECT_EQ(TaskOf(head, /*by_slot=*/false).hole_count, 0);
  head.Clear(pool_);
}

TEST_F(HeadPagesTest, BesidePackedRowsSlotsInUseAreListed) {
  HeadRows head;
  Fill(head, kGroupTokens + 20);
  std::vector<int32_t> packed(kGroupTokens);
  for (int32_t i = 0; i < kGroupTokens; ++i) packed[i] = i;
  head.TakeForGroups(packed);
  head.Renumber(pool_);
  head.AddGroups(pool_, KvPrecision::kInt8);
  head.Remove(/*slot=*/3);
  const AttentionTask task = TaskOf(head, /*by_slot=*/true);
  EXPECT_EQ(task.rows, kGroupTokens + 19);
  EXPECT_EQ(task.hole_count, 0);
  std::vector<int32_t> taken;
  for (int32_t slot = 0; slot < head.slots(); ++slot) {
    if (head.position(slot) >= 0) taken.push_back(slot);
  }
  EXPECT_EQ(OrderOf(task), taken);
  // Pages whose rows are gone are no pages of rows.
  for (const int32_t slot : taken) {
    if (head.is_packed(slot)) head.Remove(slot);
  }
  head.FreeEmptyGroups(pool_);
  EXPECT_EQ(TaskOf(head, /*by_slot=*/true).rows, 19);
  EXPECT_EQ(TaskOf(head, /*by_slot=*/true).hole_count, 0);
  head.Clear(pool_);
}

TEST_F(HeadPagesTest, RowsInOrderNeedNone) {
  HeadRows head;
  Fill(head, 20);
  for (const bool by_slot : {false, true}) {
    const AttentionTask task = TaskOf(head, by_slot);
    EXPECT_EQ(task.order, nullptr);
    EXPECT_EQ(task.slots, 20);
  }
  head.Clear(pool_);
}

}  // namespace
}  // namespace tidepool
