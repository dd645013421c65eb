// Blocks over several real services on loopback that come and go.
#include "cacheservice/shards/sharded_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <set>

#include "base/checksum.h"
#include "base/mutex.h"
#include "policies/tier/rendezvous.h"
#include "tests/cacheservice/shards/pods.h"
#include "tests/support/eventually.h"

namespace tidepool {
namespace {

using State = CachePodStats::State;
using test::Chain;
using test::NumberedKey;
using test::NumberedValue;
using test::Offload;
using test::OffloadAll;
using test::Pods;
using test::Recall;
using test::Soon;
using test::WaitForState;
using testing::HasSubstr;

constexpr int kBlocks = 40;

std::vector<RowSelection> RowsOf(int first, int last) {
  std::vector<RowSelection> selections;
  for (int number = first; number < last; ++number) {
    for (int head = 0; head < 2; ++head) {
      selections.push_back({{NumberedKey(number), number % 3}, head, 0x8000000000000101u << (number % 5)});
    }
  }
  return selections;
}

// Every row that came is the block's own; returns how many selections came whole.
int CheckRows(const std::vector<RowSelection>& selections, const RecalledRows& rows, int first) {
  const size_t row_bytes = test::SmallLayout().row_bytes();
  size_t next = 0;
  int whole = 0;
  EXPECT_EQ(rows.found.size(), selections.size());
  for (size_t i = 0; i < selections.size(); ++i) {
    const int number = first + static_cast<int>(i) / 2;
    const std::string value = NumberedValue(number, number % 3);
    const BlockView view = *BlockView::Parse(value);
    EXPECT_EQ(rows.found[i] & ~selections[i].row_mask, 0u);
    whole += rows.found[i] == selections[i].row_mask;
    for (uint64_t left = rows.found[i]; left != 0; left &= left - 1, ++next) {
      const std::string_view row = std::string_view(rows.rows).substr(next * row_bytes, row_bytes);
      EXPECT_EQ(row, view.Row(selections[i].kv_head, std::countr_zero(left)));
      EXPECT_EQ(rows.row_checksums[next], Checksum32(row));
    }
  }
  EXPECT_EQ(rows.rows.size(), next * row_bytes);
  return whole;
}

// The pod that has block `number` while all of `count` pods are there.
int OwnerOf(int number, int count) {
  std::vector<PodShare> shares;
  for (int pod = 0; pod < count; ++pod) shares.push_back({.seed = PodSeed(absl::StrCat("pod-", pod))});
  return PodsToWrite(NumberedKey(number), shares).pods[0];
}

TEST(ShardedCacheTest, WhatIsOffloadedIsSpreadAndComesBackAsFromOne) {
  const Pods pods(3);
  auto cache = pods.Connect();
  OffloadAll(*cache, 0, kBlocks);
  EXPECT_EQ(cache->Stats().offloaded_blocks, 3 * kBlocks);
  EXPECT_EQ(cache->LookupPrefix(Chain(kBlocks + 2), Soon())->blocks, kBlocks);

  std::vector<BlockId> ids;
  for (int number = 0; number < kBlocks + 2; ++number) ids.push_back({NumberedKey(number), number % 3});
  const auto values = cache->FetchBlocks(ids, Soon());
  ASSERT_TRUE(values.ok()) << values.status();
  for (int number = 0; number < kBlocks; ++number) EXPECT_EQ((*values)[number], NumberedValue(number, number % 3));
  EXPECT_FALSE((*values)[kBlocks].has_value());

  const std::vector<RowSelection> selections = RowsOf(0, kBlocks + 1);
  const auto rows = Recall(*cache, selections);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(CheckRows(selections, *rows, 0), 2 * kBlocks);
  EXPECT_TRUE(rows->complete);  // the last block is nowhere, and everybody was asked

  // All layers of a block lie on the pod that hashing names, and on no other.
  for (int pod = 0; pod < 3; ++pod) {
    const auto stored = *pods.ConnectOne(pod)->LookupEach(Chain(kBlocks), Soon());
    for (int number = 0; number < kBlocks; ++number) {
      EXPECT_EQ(stored[number] == RemoteCache::Stored::kYes, OwnerOf(number, 3) == pod) << number;
    }
  }
}

// Each pod has read from its disk twice, and the caller computes faster than any disk reads.
TEST(ShardedCacheTest, ATierOfAPodThatIsSlowerThanComputingIsLeftOut) {
  Pods pods(2);
  auto cache = pods.Connect();
  OffloadAll(*cache, 0, kBlocks, /*durable=*/true);
  for (int pod = 0; pod < 2; ++pod) {
    pods.Stop(pod);
    WaitForState(*cache, pod, State::kDown);
    pods.Start(pod);
    WaitForState(*cache, pod, State::kUp);
  }
  const ReadTerms terms(Soon(), 1e15);
  std::vector<int> reads(2, 0);
  for (int number = 0; number < kBlocks && std::min(reads[0], reads[1]) < 2; ++number) {
    if (reads[OwnerOf(number, 2)]++ >= 2) continue;
    const BlockId id = {NumberedKey(number), 0};
    ASSERT_TRUE((*cache->FetchBlocks({&id, 1}, terms))[0].has_value()) << number;
  }
  const auto hit = cache->LookupPrefix(Chain(kBlocks + 2), terms);
  ASSERT_TRUE(hit.ok()) << hit.status();
  EXPECT_EQ(hit->blocks, 0);
  EXPECT_EQ(hit->slow_blocks, kBlocks);
  EXPECT_EQ(cache->LookupPrefix(Chain(kBlocks + 2), Soon())->blocks, kBlocks) << "who does not say what he computes";
  const BlockId last = {NumberedKey(kBlocks - 1), 1};
  EXPECT_FALSE((*cache->FetchBlocks({&last, 1}, terms))[0].has_value());
  EXPECT_TRUE((*cache->FetchBlocks({&last, 1}, Soon()))[0].has_value());
}

TEST(ShardedCacheTest, APodThatIsAwayCostsItsOwnBlocksAndGivesThemBackWhenItReturns) {
  Pods pods(3);
  auto cache = pods.Connect();
  OffloadAll(*cache, 0, kBlocks);
  pods.Stop(1);

  const std::vector<RowSelection> selections = RowsOf(0, kBlocks);
  int others = 0;
  for (int number = 0; number < kBlocks; ++number) others += OwnerOf(number, 3) != 1;
  ASSERT_LT(others, kBlocks);
  // At once, and also when the pod has been given up.
  for (int round = 0; round < 2; ++round) {
    const auto rows = Recall(*cache, selections);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_EQ(CheckRows(selections, *rows, 0), 2 * others);
    EXPECT_FALSE(rows->complete);  // the others are stored, only not to be had now
    std::vector<BlockId> ids;
    for (int number = 0; number < kBlocks; ++number) ids.push_back({NumberedKey(number), 0});
    const auto values = cache->FetchBlocks(ids, Soon());
    ASSERT_TRUE(values.ok()) << values.status();
    for (int number = 0; number < kBlocks; ++number) {
      EXPECT_EQ((*values)[number].has_value(), OwnerOf(number, 3) != 1) << number;
    }
    WaitForState(*cache, 1, State::kDown);
  }
  EXPECT_GT(test::PodStats(*cache, 1).failed_rows, 0);
  EXPECT_EQ(test::PodStats(*cache, 1).downs, 1);
  OffloadAll(*cache, kBlocks, 2 * kBlocks);  // new ones go to the two

  WaitForState(*cache, 1, State::kDown);
  pods.Start(1);
  WaitForState(*cache, 1, State::kUp);
  EXPECT_EQ(cache->LookupPrefix(Chain(2 * kBlocks), Soon())->blocks, 2 * kBlocks);  // old and new
  const std::vector<RowSelection> all = RowsOf(0, 2 * kBlocks);
  const auto rows = Recall(*cache, all);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(CheckRows(all, *rows, 0), 4 * kBlocks);
}

TEST(ShardedCacheTest, BlocksUnderWayToAPodThatDiesGoToTheOthers) {
  Pods pods(3);
  auto cache = pods.Connect();
  OffloadAll(*cache, 0, 1);
  pods.Stop(0);
  OffloadAll(*cache, 1, kBlocks);  // all are acknowledged
  EXPECT_EQ(cache->Stats().offload_failures, 0);
  EXPECT_GT(test::PodStats(*cache, 0).moved_blocks, 0);
}

TEST(ShardedCacheTest, WithTwoCopiesAPodThatIsAwayCostsNothing) {
  Pods pods(3);
  ShardedCacheOptions options = Pods::Quick();
  options.copies = 2;
  auto cache = pods.Connect(options);
  OffloadAll(*cache, 0, kBlocks);
  EXPECT_EQ(cache->Stats().offloaded_blocks, 3 * kBlocks);
  const std::vector<RowSelection> selections = RowsOf(0, kBlocks);
  for (int pod = 0; pod < 3; ++pod) {
    pods.Stop(pod);
    const auto rows = Recall(*cache, selections);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_EQ(CheckRows(selections, *rows, 0), 2 * kBlocks);
    EXPECT_EQ(cache->LookupPrefix(Chain(kBlocks), Soon())->blocks, kBlocks);
    WaitForState(*cache, pod, State::kDown);
    pods.Start(pod);
    WaitForState(*cache, pod, State::kUp);
  }
  EXPECT_EQ(cache->Stats().degraded_blocks, 0);
}

TEST(ShardedCacheTest, WhereOnlyOnePodIsLeftTwoCopiesAreOneAndCounted) {
  Pods pods(2);
  ShardedCacheOptions options = Pods::Quick();
  options.copies = 2;
  auto cache = pods.Connect(options);
  pods.Stop(0);
  OffloadAll(*cache, 0, 4);
  EXPECT_EQ(cache->Stats().degraded_blocks, 12);
}

TEST(ShardedCacheTest, APodThatJoinsTakesNewBlocksAndHidesNoOldOnes) {
  const Pods pods(3);
  Mutex mutex;
  size_t known = 2;
  ShardedCacheOptions options = Pods::Quick();
  options.resolve_interval = absl::Milliseconds(1);
  options.resolve = [&]() -> absl::StatusOr<std::vector<std::string>> {
    MutexLock lock(&mutex);
    std::vector<std::string> all = pods.addresses();
    all.resize(known);
    return all;
  };
  auto cache = pods.Connect(options);
  OffloadAll(*cache, 0, kBlocks);
  {
    MutexLock lock(&mutex);
    known = 3;
  }
  WaitForState(*cache, 2, State::kUp);
  EXPECT_EQ(cache->LookupPrefix(Chain(kBlocks), Soon())->blocks, kBlocks);
  const std::vector<RowSelection> selections = RowsOf(0, kBlocks);
  for (int round = 0; round < 2; ++round) {  // the second one knows where they are
    const auto rows = Recall(*cache, selections);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_EQ(CheckRows(selections, *rows, 0), 2 * kBlocks);
  }
  OffloadAll(*cache, kBlocks, 2 * kBlocks);
  EXPECT_GT(test::PodStats(*cache, 2).offloaded_blocks, 0);
  // One that leaves the list is read from while it is there, and given nothing.
  const int64_t before = test::PodStats(*cache, 2).offloaded_blocks;
  {
    MutexLock lock(&mutex);
    known = 2;
  }
  WaitForState(*cache, 2, State::kLeaving);
  OffloadAll(*cache, 2 * kBlocks, 3 * kBlocks);
  EXPECT_EQ(test::PodStats(*cache, 2).offloaded_blocks, before);
  EXPECT_EQ(cache->LookupPrefix(Chain(3 * kBlocks), Soon())->blocks, 3 * kBlocks);
}

TEST(ShardedCacheTest, APodThatComesBackIsGivenItsShareSlowly) {
  Pods pods(2);
  ShardedCacheOptions options = Pods::Quick();
  options.timing.slow_start = absl::Hours(1);
  auto cache = pods.Connect(options);
  EXPECT_EQ(test::PodStats(*cache, 1).weight, 1);
  OffloadAll(*cache, 0, 1);
  pods.Stop(1);
  WaitForState(*cache, 1, State::kDown);
  pods.Start(1);
  WaitForState(*cache, 1, State::kSlowStart);
  EXPECT_LT(test::PodStats(*cache, 1).weight, 0.2);
  const int64_t before = test::PodStats(*cache, 1).offloaded_blocks;
  OffloadAll(*cache, 1, 301);
  // A tenth of its half: 15 of 300 blocks, 3 layers each.
  const int64_t given = (test::PodStats(*cache, 1).offloaded_blocks - before) / 3;
  EXPECT_GT(given, 3);
  EXPECT_LT(given, 35);
  EXPECT_EQ(cache->LookupPrefix(Chain(301), Soon())->blocks, 301);
}

TEST(ShardedCacheTest, ASlowStartEndsWithTheWholeShare) {
  Pods pods(2);
  ShardedCacheOptions options = Pods::Quick();
  options.timing.slow_start = absl::Milliseconds(200);
  auto cache = pods.Connect(options);
  pods.Stop(1);
  WaitForState(*cache, 1, State::kDown);
  pods.Start(1);
  WaitForState(*cache, 1, State::kUp);
  EXPECT_EQ(test::PodStats(*cache, 1).weight, 1);
  OffloadAll(*cache, 0, kBlocks);
  for (int number = 0; number < kBlocks; ++number) {
    const auto stored = (*pods.ConnectOne(1)->LookupEach({{NumberedKey(number)}}, Soon()))[0];
    EXPECT_EQ(stored == RemoteCache::Stored::kYes, OwnerOf(number, 2) == 1);
  }
}

TEST(ShardedCacheTest, WithoutAnyPodCallsFailAndWorkAgainWhenOneIsThere) {
  Pods pods(2);
  auto cache = pods.Connect();
  pods.Stop(0);
  pods.Stop(1);
  WaitForState(*cache, 0, State::kDown);
  WaitForState(*cache, 1, State::kDown);
  EXPECT_TRUE(absl::IsUnavailable(cache->LookupPrefix(Chain(1), Soon()).status()));
  // A pod is known to be down a moment before nobody is sent there; blocks are missing then.
  EXPECT_TRUE(test::Eventually([&] {
    return absl::IsUnavailable(cache->FetchBlocks(std::vector<BlockId>{{NumberedKey(0), 0}}, Soon()).status());
  }));
  EXPECT_TRUE(absl::IsUnavailable(Recall(*cache, RowsOf(0, 1)).status()));
  EXPECT_TRUE(absl::IsUnavailable(Offload(*cache, 0, 0).get()));
  EXPECT_EQ(cache->Stats().offload_failures, 1);
  WaitForState(*cache, 1, State::kDown);
  pods.Start(1);
  WaitForState(*cache, 1, State::kUp);
  OffloadAll(*cache, 0, 1);
}

TEST(ShardedCacheTest, ARecallOfNothingIsAnsweredAndAnEndingClientCallsEveryDone) {
  Pods pods(2);
  auto cache = pods.Connect();
  EXPECT_TRUE(Recall(*cache, {})->found.empty());
  EXPECT_EQ(Recall(*cache, {{{NumberedKey(0), 0}, 0, 0}})->found.size(), 1u);
  std::vector<std::future<absl::Status>> done;
  for (int number = 0; number < 200; ++number) done.push_back(Offload(*cache, number, 0));
  std::promise<absl::StatusOr<RecalledRows>> rows;
  cache->Recall(RowsOf(0, 20), Soon(), [&](absl::StatusOr<RecalledRows> answer) { rows.set_value(std::move(answer)); });
  cache.reset();
  for (std::future<absl::Status>& status : done) status.get().IgnoreError();
  rows.get_future().get().status().IgnoreError();
}

TEST(ShardedCacheTest, OptionsOutOfRangeAreNamed) {
  struct Case {
    const char* field;
    std::function<void(ShardedCacheOptions&)> spoil;
  };
  for (const Case& c : std::vector<Case>{
           {"copies", [](auto& o) { o.copies = 0; }},
           {"copies", [](auto& o) { o.copies = 3; }},
           {"most_failures", [](auto& o) { o.timing.most_failures = 0; }},
           {"slow_start", [](auto& o) { o.timing.slow_start = -absl::Seconds(1); }},
           {"tenant", [](auto& o) { o.remote.tenant = ""; }},
           {"write_behind_bytes", [](auto& o) { o.remote.write_behind_bytes = 1; }},
       }) {
    ShardedCacheOptions options = Pods::Quick();
    options.pods.addresses = {"127.0.0.1:1", "127.0.0.1:2"};
    c.spoil(options);
    const auto cache = ShardedCache::Connect(options);
    ASSERT_TRUE(absl::IsInvalidArgument(cache.status())) << c.field;
    EXPECT_THAT(std::string(cache.status().message()), HasSubstr(c.field));
  }
}

}  // namespace
}  // namespace tidepool
