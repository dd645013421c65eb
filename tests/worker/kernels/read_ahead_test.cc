// Which lines are asked for as others are read.
#include "worker/kernels/cpu/read_ahead.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace tidepool {
namespace {

class ReadAheadTest : public testing::Test {
 protected:
  // most: lines that should be under way.
  ReadAhead Over(const std::vector<ReadAhead::Run>& runs, int32_t most) {
    return {.run = runs.data(), .end = runs.data() + runs.size(), .most = most};
  }
  const char* Line(int index) const { return memory_.data() + index * ReadAhead::kLine; }

  const std::vector<char> memory_ = std::vector<char>(100 * ReadAhead::kLine);
};

TEST_F(ReadAheadTest, GivesAsManyLinesAsAreReadOnceEnoughAreUnderWay) {
  const std::vector<ReadAhead::Run> runs = {{Line(0), 50}};
  ReadAhead ahead = Over(runs, 20);
  ahead.lead = ahead.asked = 20;
  EXPECT_EQ(ahead.Take(8), Line(20));
  EXPECT_EQ(TakeLines(ahead, 8), Line(28));
  EXPECT_EQ(TakeLines(ahead, 4), Line(36));
  EXPECT_EQ(ahead.asked, 40);
  EXPECT_EQ(ahead.lead, 20);
}

TEST_F(ReadAheadTest, TakesTwiceAsManyUntilEnoughAreUnderWay) {
  const std::vector<ReadAhead::Run> runs = {{Line(0), 90}};
  ReadAhead ahead = Over(runs, 20);
  EXPECT_EQ(ahead.Take(8), Line(0));
  EXPECT_EQ(ahead.lead, 8);
  EXPECT_EQ(ahead.Take(8), Line(16));
  EXPECT_EQ(ahead.lead, 16);
  EXPECT_EQ(ahead.Take(8), Line(32));
  EXPECT_EQ(ahead.lead, 20);
  EXPECT_EQ(ahead.Take(8), Line(44));
  EXPECT_EQ(ahead.lead, 20);
}

TEST_F(ReadAheadTest, AsksForNothingWhereTooManyAreUnderWay) {
  const std::vector<ReadAhead::Run> runs = {{Line(0), 90}};
  ReadAhead ahead = Over(runs, 20);
  ahead.lead = ahead.asked = 40;
  EXPECT_EQ(ahead.Take(8), nullptr);
  EXPECT_EQ(ahead.Take(8), nullptr);
  EXPECT_EQ(ahead.lead, 24);
  EXPECT_EQ(ahead.Take(8), Line(40));
}

TEST_F(ReadAheadTest, GoesOnInTheNextRunAndEndsBehindTheLast) {
  const std::vector<ReadAhead::Run> runs = {{Line(0), 12}, {Line(50), 10}};
  ReadAhead ahead = Over(runs, 10);
  ahead.lead = ahead.asked = 10;
  // Two lines are left: six that were asked for come again before them, and as many of the next run are asked for.
  EXPECT_EQ(TakeLines(ahead, 8), Line(4));
  EXPECT_EQ(ahead.run, &runs[1]);
  EXPECT_EQ(ahead.asked, 6);
  EXPECT_EQ(ahead.lead, 10);
  EXPECT_EQ(ahead.Take(4), Line(56));
  EXPECT_EQ(ahead.Take(4), nullptr);
  EXPECT_EQ(ahead.run, ahead.end);
}

TEST_F(ReadAheadTest, KnowsOfNothing) {
  ReadAhead ahead;
  EXPECT_EQ(TakeLines(ahead, 4), nullptr);
  ahead.most = 10;
  EXPECT_EQ(ahead.Take(4), nullptr);
}

}  // namespace
}  // namespace tidepool
