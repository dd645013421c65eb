#include "cacheservice/tiers/disk_index.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "tests/support/blocks.h"

namespace tidepool {
namespace {

BlockId Id(int number) { return {test::NumberedKey(number), 0}; }
DiskIndex::Location At(uint64_t sequence, uint32_t cost_bytes = 100, bool durable = false) {
  return {.sequence = sequence, .cost_bytes = cost_bytes, .durable = durable};
}

TEST(DiskIndexTest, TheOldestAreDroppedToStayWithinTheLimit) {
  DiskIndex index(300);
  for (int number : {1, 2, 3}) EXPECT_EQ(index.Add(Id(number), At(number)), 0);
  EXPECT_EQ(index.bytes(), 300u);
  EXPECT_EQ(index.Add(Id(4), At(4, 150)), 2);
  EXPECT_EQ(index.Find(Id(1)), std::nullopt);
  EXPECT_EQ(index.Find(Id(2)), std::nullopt);
  EXPECT_EQ(index.Find(Id(3)), At(3));
  EXPECT_EQ(index.bytes(), 250u);
  EXPECT_EQ(index.objects(), 2u);
  EXPECT_EQ(index.first_sequence(), 3u);
  EXPECT_EQ(index.next_sequence(), 5u);
}

TEST(DiskIndexTest, AReplacedValueCountsUntilItIsTheOldestAndIsNoDrop) {
  DiskIndex index(300);
  index.Add(Id(1), At(1));
  index.Add(Id(1), At(2, 100, true));
  EXPECT_EQ(index.Find(Id(1)), At(2, 100, true));
  EXPECT_EQ(index.bytes(), 200u) << "the older bytes are still on disk";
  EXPECT_EQ(index.objects(), 1u);
  EXPECT_EQ(index.Add(Id(2), At(3, 150)), 0) << "sequence 1 is dropped, and it held nothing";
  EXPECT_EQ(index.Find(Id(1)), At(2, 100, true));
  EXPECT_EQ(index.bytes(), 250u);
}

TEST(DiskIndexTest, WhatNobodyUsedIsTakenOutAndWhatWasUsedIsNamed) {
  constexpr uint32_t kThen = 1000, kLater = 2000;
  DiskIndex index(100'000);
  for (int number = 1; number <= 5; ++number) {
    DiskIndex::Location at = At(number);
    at.used = number == 5 ? kLater : kThen;
    index.Add(Id(number), at);
  }
  EXPECT_TRUE(index.Use(Id(2), kLater));
  EXPECT_FALSE(index.Use(Id(9), kLater));
  std::vector<BlockId> expired;
  const auto third = [](const BlockId& id) { return id == Id(3); };
  const DiskIndex::Aged none = index.Expire(kThen - 1, third);
  EXPECT_EQ(none.expired, 0);
  EXPECT_TRUE(none.used.empty());
  const DiskIndex::Aged aged = index.Expire(kThen, third, [&expired](const BlockId& id) { expired.push_back(id); });
  EXPECT_EQ(aged.expired, 2);
  EXPECT_EQ(expired, (std::vector<BlockId>{Id(1), Id(4)}));
  ASSERT_EQ(aged.used.size(), 2u);
  EXPECT_EQ(aged.used[0].id, Id(2));
  EXPECT_EQ(aged.used[1].id, Id(3));
  EXPECT_FALSE(aged.more);
  EXPECT_EQ(index.objects(), 3u);
  EXPECT_EQ(index.bytes(), 400u) << "the fourth is behind what is used";
  EXPECT_EQ(index.first_sequence(), 2u);
  index.Add(Id(2), At(6));
  index.Add(Id(3), At(7));
  EXPECT_EQ(index.Expire(kThen, third).used.size(), 0u);
  EXPECT_EQ(index.bytes(), 300u);
  EXPECT_EQ(index.first_sequence(), 5u);
}

TEST(DiskIndexTest, OneLookAtWhatNobodyUsesIsShort) {
  DiskIndex large(uint64_t{1} << 30);
  for (int number = 1; number <= 10; ++number) large.Add(Id(number), At(number, 1 << 20));
  const DiskIndex::Aged used = large.Expire(0, [](const BlockId&) { return true; });
  EXPECT_EQ(used.used.size(), 4u) << "4 MiB are to be stored anew";
  EXPECT_TRUE(used.more);

  constexpr int kValues = 10'000;
  DiskIndex many(uint64_t{1} << 30);
  for (int number = 1; number <= kValues; ++number) many.Add({BlockKey{}, number}, At(number));
  int64_t expired = 0, looks = 0;
  for (bool more = true; more; ++looks) {
    const DiskIndex::Aged aged = many.Expire(0, [](const BlockId&) { return false; });
    expired += aged.expired;
    more = aged.more;
  }
  EXPECT_EQ(looks, 3) << "at 4,096 of them each";
  EXPECT_EQ(expired, kValues);
  EXPECT_EQ(many.bytes(), 0u);
}

TEST(DiskIndexTest, WhatHalfOfTheLimitWouldDropIsToBeCopiedOldestFirst) {
  DiskIndex index(1000);
  uint64_t mark = 7;
  for (int number = 1; number <= 5; ++number) index.Add(Id(number), At(number));
  EXPECT_TRUE(index.LeavingNext(1000, &mark).empty()) << "half of the tier is free";
  EXPECT_EQ(mark, 0u);
  EXPECT_EQ(index.backlog_bytes(), 0u);
  for (int number = 6; number <= 9; ++number) index.Add(Id(number), At(number));
  EXPECT_EQ(index.backlog_bytes(), 400u);
  EXPECT_EQ(index.LeavingNext(200, &mark), (std::vector<BlockId>{Id(1), Id(2)}));
  EXPECT_EQ(mark, 2u);
  EXPECT_EQ(index.LeavingNext(1, &mark), (std::vector<BlockId>{Id(1)})) << "one at least";
  index.MarkCopied(2);
  EXPECT_EQ(index.backlog_bytes(), 200u);
  EXPECT_EQ(index.LeavingNext(1000, &mark), (std::vector<BlockId>{Id(3), Id(4)}));
  EXPECT_EQ(mark, 4u);
  index.MarkCopied(4);
  EXPECT_TRUE(index.LeavingNext(1000, &mark).empty());
  index.MarkCopied(3);
  EXPECT_EQ(index.backlog_bytes(), 0u) << "a mark does not go back";
}

TEST(DiskIndexTest, WhatIsDroppedWithoutAMarkIsCounted) {
  DiskIndex index(1000);
  for (int number = 1; number <= 10; ++number) index.Add(Id(number), At(number));
  index.MarkCopied(2);
  for (int number = 11; number <= 15; ++number) index.Add(Id(number), At(number));
  EXPECT_EQ(index.dropped_uncopied(), 3u) << "3, 4 and 5";
  EXPECT_EQ(index.backlog_bytes(), 500u);
  uint64_t mark = 0;
  EXPECT_EQ(index.LeavingNext(1000, &mark).front(), Id(6));
  index.MarkCopied(10);
  EXPECT_EQ(index.backlog_bytes(), 0u);
}

TEST(DiskIndexTest, ReplacedAndForgottenValuesAreNotCopied) {
  DiskIndex index(1000);
  for (int number = 1; number <= 9; ++number) index.Add(Id(number), At(number));
  index.Add(Id(1), At(10));
  index.Forget(Id(2), 2);
  uint64_t mark = 0;
  EXPECT_EQ(index.LeavingNext(1000, &mark), (std::vector<BlockId>{Id(3), Id(4), Id(5)}));
  EXPECT_EQ(mark, 5u);
  for (int number = 11; number <= 13; ++number) index.Add(Id(number), At(number));
  EXPECT_EQ(index.dropped_uncopied(), 1u) << "3: of 1 and 2 nothing was left to lose";
}

TEST(DiskIndexTest, OnlyTheLocationThatWasReadIsForgotten) {
  DiskIndex index(300);
  index.Add(Id(1), At(1));
  EXPECT_FALSE(index.Forget(Id(2), 1));
  EXPECT_FALSE(index.Forget(Id(1), 7)) << "stored anew meanwhile";
  EXPECT_TRUE(index.Forget(Id(1), 1));
  EXPECT_FALSE(index.Forget(Id(1), 1));
  EXPECT_EQ(index.Find(Id(1)), std::nullopt);
  EXPECT_EQ(index.bytes(), 100u);
  EXPECT_EQ(index.objects(), 0u);
}

TEST(DiskIndexTest, OneValueIsKeptHoweverLargeItIs) {
  DiskIndex index(10);
  EXPECT_EQ(index.Add(Id(1), At(1)), 0);
  EXPECT_NE(index.Find(Id(1)), std::nullopt);
  EXPECT_EQ(index.Add(Id(2), At(2)), 1);
  EXPECT_EQ(index.objects(), 1u);
}

TEST(DiskIndexTest, OnlyTheOlderHalfOfANearlyFullTierLeavesSoon) {
  DiskIndex index(1000);
  for (int number = 1; number <= 6; ++number) index.Add(Id(number), At(number));
  EXPECT_FALSE(index.LeavesSoon(*index.Find(Id(1)))) << "there is room";
  for (int number = 7; number <= 10; ++number) index.Add(Id(number), At(number));
  EXPECT_TRUE(index.LeavesSoon(*index.Find(Id(1))));
  EXPECT_TRUE(index.LeavesSoon(*index.Find(Id(5))));
  EXPECT_FALSE(index.LeavesSoon(*index.Find(Id(6))));
  EXPECT_FALSE(index.LeavesSoon(*index.Find(Id(10))));
}

TEST(DiskIndexTest, SequencesGoOnBehindThoseOfTheLastRunAndNeverBack) {
  DiskIndex index(1000);
  EXPECT_EQ(index.next_sequence(), 1u);
  index.SkipTo(40);
  index.SkipTo(5);
  EXPECT_EQ(index.next_sequence(), 40u);
  EXPECT_EQ(index.first_sequence(), 40u) << "empty: what is below is dropped";
  index.Add(Id(1), At(50));
  EXPECT_EQ(index.first_sequence(), 50u);
  EXPECT_GT(index.bytes_of_memory(), 0u);
}

}  // namespace
}  // namespace tidepool
