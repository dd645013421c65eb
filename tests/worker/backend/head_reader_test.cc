// Which lines are asked for, of which heads, in which order.
#include "worker/backend/cpu/head_reader.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

namespace tidepool {
namespace {

class HeadReaderTest : public testing::Test {
 protected:
  HeadReaderTest() : memory_(*PageMemory::Create(layout_, kPages)), reader_(*memory_) {}
  ~HeadReaderTest() override {
    for (HeadRows* head : {&a_, &b_}) head->Clear(pool_);
  }
  // A head of full slot pages, which the thread reads next.
  void AddHead(HeadRows& head, int pages) {
    head.Extend(pool_, 0, pages * kPageSlots);
    reader_.Add(head, /*by_slot=*/false);
  }
  using Run = std::pair<const char*, int32_t>;
  // What a thread asks for that begins to read a head: from there on.
  std::vector<Run> RunsFrom(size_t head) {
    std::vector<Run> runs;
    const ReadAhead& ahead = *reader_.Begin(head);
    for (const ReadAhead::Run* run = ahead.run; run != ahead.end; ++run) runs.emplace_back(run->at, run->lines);
    return runs;
  }
  const char* At(const HeadRows& head, size_t page) const {
    return memory_->page(head.pages()[page].page, head.pages()[page].precision);
  }
  int32_t Lines(KvPrecision precision) const {
    return static_cast<int32_t>(memory_->page_bytes(precision) / ReadAhead::kLine);
  }

  static constexpr int32_t kPages = 200;
  KvLayout layout_{.layers = 1, .kv_heads = 1, .head_dim = 64, .type = KvType::kF16};
  std::unique_ptr<PageMemory> memory_;
  PagePool pool_{kPages, PageMemory::BytesOf(layout_)};
  HeadReader reader_;
  HeadRows a_, b_;
};

TEST_F(HeadReaderTest, PagesSideBySideAreOneRun) {
  AddHead(a_, 5);
  AddHead(b_, 2);
  const int32_t page = Lines(KvPrecision::kF16);
  EXPECT_EQ(RunsFrom(0), (std::vector<Run>{{At(a_, 0), 5 * page}, {At(b_, 0), 2 * page}}));
}

TEST_F(HeadReaderTest, GoesOnWhereItHasCome) {
  AddHead(a_, 2);
  AddHead(b_, 4);
  const int32_t page = Lines(KvPrecision::kF16);
  ReadAhead* ahead = reader_.Begin(0);
  ahead->most = page;
  for (int32_t read = 0; read < 2 * page; ++read) ahead->Take(1);
  const int32_t asked = ahead->asked;
  ASSERT_GT(asked, 0);  // of the second head
  ahead = reader_.Begin(1);
  EXPECT_EQ(ahead->run->at, At(b_, 0));
  EXPECT_EQ(ahead->asked, asked);
  EXPECT_EQ(ahead->lead, asked);
}

TEST_F(HeadReaderTest, HeadsThatOthersTookAreLeft) {
  AddHead(a_, 2);
  AddHead(b_, 4);
  EXPECT_EQ(RunsFrom(1), (std::vector<Run>{{At(b_, 0), 4 * Lines(KvPrecision::kF16)}}));
  EXPECT_EQ(reader_.Begin(1)->lead, 0);
}

TEST_F(HeadReaderTest, PackedPagesComeFirstAndOnceUnlessRowsAreReadAsTheyLie) {
  a_.Extend(pool_, 0, 3 * kPageSlots);
  const std::vector<int32_t> old(a_.order().begin(), a_.order().begin() + kGroupTokens);
  a_.TakeForGroups(old);
  a_.Renumber(pool_);
  a_.AddGroups(pool_, KvPrecision::kInt8);
  ASSERT_EQ(a_.pages().size(), 3);  // a slot page, two halves of a packed one
  const Run plain(At(a_, 0), Lines(KvPrecision::kF16)), packed(At(a_, 1), Lines(KvPrecision::kInt8));
  reader_.Add(a_, /*by_slot=*/false);
  EXPECT_EQ(RunsFrom(0), (std::vector<Run>{packed, plain}));
  reader_.Clear();
  reader_.Add(a_, /*by_slot=*/true);
  EXPECT_EQ(RunsFrom(0), (std::vector<Run>{plain, packed}));
}

}  // namespace
}  // namespace tidepool
