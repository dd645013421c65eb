#include "worker/kv/lowest_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "policies/retain/token_scores.h"
#include "worker/kv/head_view.h"
#include "worker/kv/page_pool.h"

namespace tidepool {
namespace {

constexpr int kGroup = 3, kRecent = 20, kSinks = 2;

// A head that gives up rows by its sums for a while, found anew each time by the policy's own arithmetic.
class Head {
 public:
  Head(int rows, bool step_sums, unsigned seed) : random_(seed), step_sums_(step_sums) {
    head_.KeepColumnSums(kGroup, /*steps=*/!step_sums);
    for (int i = 0; i < rows; ++i) Add();
    for (std::vector<float>& sums : head_.column_sums()) {
      for (float& sum : sums) sum += Received(20);
    }
    if (step_sums) head_.KeepStepSums();
  }

  void Add() { head_.Add(pool_, next_++, RowKind::kKept); }
  // Values are few, so that many rows are equal.
  void Attend() {
    if (step_sums_) {
      for (float& sum : head_.step_sums()) sum += Received(3);
    } else {
      for (std::vector<float>& sums : head_.column_sums()) {
        for (float& sum : sums) sum += Received(3);
      }
    }
  }
  LowestRows::Past Past() const { return {.first = kSinks, .end = head_.rows() - kRecent}; }
  std::vector<int32_t> Lowest(GroupReduce reduce, size_t count) const {
    const LowestRows::Past past = Past();
    std::vector<int32_t> slots(head_.order().begin() + past.first, head_.order().begin() + past.end), lowest;
    while (lowest.size() < count) {
      const int worst = WorstIndex(ColumnSumsOf(head_, slots, reduce));
      lowest.push_back(slots[worst]);
      slots.erase(slots.begin() + worst);
    }
    return lowest;
  }
  HeadRows& rows() { return head_; }
  int Number(int most) { return static_cast<int>(random_() % most); }

 private:
  float Received(int most) { return static_cast<float>(Number(most)) * 0.25f; }

  PagePool pool_{64, 1024};
  HeadRows head_;
  std::mt19937 random_;
  const bool step_sums_;
  int32_t next_ = 0;
};

std::vector<int32_t> Found(LowestRows& lowest, Head& head, GroupReduce reduce, size_t count) {
  std::vector<int32_t> slots(count);
  lowest.Find(head.rows(), reduce, head.Past(), absl::MakeSpan(slots));
  return slots;
}

TEST(LowestRowsTest, TheyAreWhatThePolicyLeavesOut) {
  for (const GroupReduce reduce : {GroupReduce::kMean, GroupReduce::kSum, GroupReduce::kMax}) {
    for (const int rows : {kRecent + kSinks + 4, 60, 300}) {
      Head head(rows, reduce != GroupReduce::kMax, rows);
      LowestRows lowest;
      int guessed = 0;
      bool found = true;  // in the step before
      for (int step = 0; step < 200; ++step) {
        head.Add();
        lowest.Follow(head.rows());
        const int32_t guess = lowest.Guess(head.rows(), reduce, head.Past());
        if (found) {
          ASSERT_EQ(guess, head.Lowest(reduce, 1)[0]) << "step " << step << ", " << rows << " rows";
        }
        head.Attend();
        // Now and then nothing leaves, or more than one.
        const size_t count = step % 5 == 3 ? 0 : step % 10 == 4 ? 3 : 1;
        const std::vector<int32_t> expected = head.Lowest(reduce, count);
        guessed += count == 1 && guess == expected[0] ? 1 : 0;
        lowest.Follow(head.rows());
        found = count > 0;
        if (!found) continue;
        ASSERT_EQ(Found(lowest, head, reduce, count), expected) << "step " << step << ", " << rows << " rows";
        for (const int32_t slot : expected) {
          head.rows().Remove(slot);
          lowest.Left(slot);
        }
      }
      EXPECT_GT(guessed, 20);
    }
  }
}

TEST(LowestRowsTest, RowsThatAreNoNumbersLeaveFirst) {
  Head head(100, /*step_sums=*/true, 1);
  LowestRows lowest;
  head.rows().column_sums()[1][head.rows().order()[40]] = std::numeric_limits<float>::quiet_NaN();
  head.rows().column_sums()[0][head.rows().order()[41]] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Found(lowest, head, GroupReduce::kSum, 1)[0], head.rows().order()[40]);
}

// What else happens to rows: some go, come or lie elsewhere.
TEST(LowestRowsTest, TheyAreLookedForAnewWhenOtherThingsHappen) {
  Head head(200, /*step_sums=*/true, 2);
  LowestRows lowest;
  for (int turn = 0; turn < 40; ++turn) {
    head.Add();
    lowest.Follow(head.rows());
    ASSERT_EQ(Found(lowest, head, GroupReduce::kMean, 1), head.Lowest(GroupReduce::kMean, 1)) << turn;
    switch (turn % 3) {
      case 0: {  // without a word
        std::vector<int32_t> gone = head.Lowest(GroupReduce::kMean, 3);
        head.rows().RemoveAll(gone);
        break;
      }
      case 1:
        for (int i = 0; i < 3; ++i) head.Add();
        break;
      default:
        for (std::vector<float>& sums : head.rows().column_sums())
          std::shuffle(sums.begin(), sums.end(), std::mt19937(turn));
        lowest.Clear();
    }
  }
}

}  // namespace
}  // namespace tidepool
