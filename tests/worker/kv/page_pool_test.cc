#include "worker/kv/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace tidepool {
namespace {

constexpr PageBytes kBytes = {4096, 4224, 2560, 1536};

TEST(PagePoolTest, PagesOfAllPrecisionsShareTheBytes) {
  PagePool pool(3, kBytes);
  EXPECT_EQ(pool.total(), 3);
  const int32_t slot_page = pool.Allocate();
  EXPECT_EQ(pool.used_bytes(), 4096);
  EXPECT_EQ(pool.used(), 1);
  const int32_t packed = pool.Allocate(KvPrecision::kKivi2);
  EXPECT_EQ(pool.used_bytes(), 4096 + 1536);
  EXPECT_EQ(pool.used(), 2) << "rounded up to slot pages";
  pool.Free(slot_page);
  EXPECT_EQ(pool.used_bytes(), 1536);
  pool.Free(packed, KvPrecision::kKivi2);
  EXPECT_EQ(pool.used_bytes(), 0);
  EXPECT_EQ(pool.Pages(4097), 2);
}

TEST(PagePoolDeathTest, RunningDryIsABug) {
  PagePool pool(1, kBytes);
  pool.Allocate(KvPrecision::kKivi4);
  EXPECT_DEATH(pool.Allocate(KvPrecision::kKivi4), "");
}

TEST(PagePoolTest, MemoryOfFreePagesIsGivenBackBeforeTheRangesOutgrowTheBudget) {
  PagePool pool(4, kBytes);
  std::vector<std::pair<KvPrecision, std::vector<int32_t>>> released;
  pool.set_release([&](KvPrecision precision, absl::Span<const int32_t> pages) {
    released.push_back({precision, {pages.begin(), pages.end()}});
  });
  std::vector<int32_t> slot_pages;
  for (int i = 0; i < 4; ++i) slot_pages.push_back(pool.Allocate());
  for (int32_t page : slot_pages) pool.Free(page);
  EXPECT_TRUE(released.empty());
  pool.Allocate(KvPrecision::kInt8);
  ASSERT_EQ(released.size(), 1u);
  EXPECT_EQ(released[0].first, KvPrecision::kF16);
  EXPECT_EQ(released[0].second, (std::vector<int32_t>{0, 1, 2, 3}));
  pool.Allocate(KvPrecision::kInt8);
  EXPECT_EQ(released.size(), 1u) << "nothing is held but what is used";
  EXPECT_EQ(pool.Allocate(), 0);
}

TEST(PagePoolTest, NoPageIsHandedOutTwiceAndHeldBytesNeverPassTheBudget) {
  PagePool pool(40, kBytes);
  const int64_t total = 40 * 4096;
  std::map<KvPrecision, std::set<int32_t>> used, held;
  pool.set_release([&](KvPrecision precision, absl::Span<const int32_t> pages) {
    for (int32_t page : pages) ASSERT_EQ(held[precision].erase(page), 1u);
  });
  std::mt19937 random(3);
  for (int step = 0; step < 20000; ++step) {
    const auto precision = static_cast<KvPrecision>(random() % kKvPrecisions);
    const bool take = random() % 100 < (step / 1000 % 2 == 0 ? 70 : 30);
    if (take && pool.used_bytes() + static_cast<int64_t>(pool.page_bytes(precision)) <= total) {
      const int32_t page = pool.Allocate(precision);
      ASSERT_TRUE(used[precision].insert(page).second);
      ASSERT_LE((page + 1) * static_cast<int64_t>(pool.page_bytes(precision)), total) << "within its range";
      held[precision].insert(page);
    } else if (!used[precision].empty()) {
      const auto at = std::next(used[precision].begin(), static_cast<long>(random() % used[precision].size()));
      pool.Free(*at, precision);
      used[precision].erase(at);
    }
    int64_t used_bytes = 0, held_bytes = 0;
    for (const auto& [of, pages] : used) used_bytes += static_cast<int64_t>(pages.size() * pool.page_bytes(of));
    for (const auto& [of, pages] : held) held_bytes += static_cast<int64_t>(pages.size() * pool.page_bytes(of));
    ASSERT_EQ(pool.used_bytes(), used_bytes);
    ASSERT_LE(held_bytes, total);
  }
}

TEST(PagePoolTest, PagesThatAreReadInTurnLieSideBySide) {
  constexpr int kHeads = 3, kPagesEach = 3 * PagePool::kExtentPages;
  PagePool pool(2 * kHeads * kPagesEach, kBytes);
  std::vector<std::vector<int32_t>> pages(kHeads);
  auto grow = [&](std::vector<int32_t>& of, bool many) {
    of.push_back(pool.Allocate(KvPrecision::kF16, of.empty() ? -1 : of.back(), many));
  };
  auto breaks = [](const std::vector<int32_t>& of) {
    int count = 0;
    for (size_t i = 1; i < of.size(); ++i) count += of[i] != of[i - 1] + 1;
    return count;
  };
  for (std::vector<int32_t>& of : pages) {
    for (int i = 0; i < kPagesEach; ++i) grow(of, true);
    EXPECT_EQ(breaks(of), 0) << "fresh memory";
  }
  // Each gives back all but its first pages, and they grow again, a page at a time in turns.
  for (std::vector<int32_t>& of : pages) {
    for (; of.size() > PagePool::kExtentPages / 2; of.pop_back()) pool.Free(of.back());
  }
  while (pages[0].size() < kPagesEach) {
    for (std::vector<int32_t>& of : pages) grow(of, false);
  }
  for (const std::vector<int32_t>& of : pages) EXPECT_LE(breaks(of), kPagesEach / PagePool::kExtentPages);
}

TEST(PagePoolTest, SinglePagesFillExtentsThatWereBegunBeforeFreshOnes) {
  constexpr int kHeads = 5;
  PagePool pool(20 * PagePool::kExtentPages, kBytes);
  int32_t highest = 0;
  std::vector<int32_t> last(kHeads, -1);
  for (int i = 0; i < 4 * PagePool::kExtentPages; ++i) {
    for (int32_t& page : last) highest = std::max(highest, page = pool.Allocate(KvPrecision::kF16, page));
  }
  EXPECT_EQ(highest + 1, kHeads * 4 * PagePool::kExtentPages) << "no page between them was left out";
}

TEST(PagePoolTest, APoolThatEndsWithinAnExtentGivesAllItsPages) {
  constexpr int32_t kPages = 2 * PagePool::kExtentPages + 3;
  PagePool pool(kPages, kBytes);
  for (int round = 0; round < 3; ++round) {
    std::set<int32_t> pages;
    while (pages.size() < kPages) ASSERT_TRUE(pages.insert(pool.Allocate(KvPrecision::kF16, -1, round == 1)).second);
    EXPECT_EQ(*pages.rbegin(), kPages - 1);
    for (const int32_t page : pages) pool.Free(page);
  }
}

}  // namespace
}  // namespace tidepool
