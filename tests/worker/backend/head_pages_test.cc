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
    layout_.layers = layout_.kv_heads = 1;
    layout_.head_dim = 64;
    layout_.type = KvType::kF16;
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
  KvLayout layout_;
  std::unique_ptr<PageMemory> memory_;
  std::vector<PackedPage> packed_;
  PagePool pool_{kPages, PageBytes{4096, 0, 0, 0}};
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

TEST_F(HeadPagesTest, HolesAreLeftOut) {
  HeadRows head;
  Fill(head, 20);
  head.Replace(/*slot=*/18, /*position=*/5);
  head.Remove(/*slot=*/2);
  const AttentionTask task = TaskOf(head, /*by_slot=*/true);
  EXPECT_EQ(OrderOf(task), (std::vector<int32_t>{0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}));
  EXPECT_EQ(task.slots, head.slots());
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
