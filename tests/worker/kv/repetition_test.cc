#include "worker/kv/repetition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace tidepool {
namespace {

using testing::ElementsAre;

const RepetitionWords kWords = {.first = {100, 101}, .next = {200}, .end = {300}};

std::vector<int32_t> Context(int32_t tokens) {
  std::vector<int32_t> context(tokens);
  std::iota(context.begin(), context.end(), 0);
  return context;
}

TEST(RepetitionTest, EachPieceIsAskedForAndFollowsTheContext) {
  const std::vector<int32_t> context = Context(12);
  Repetition repetition(kWords, context, 0, 10);
  EXPECT_THAT(repetition.waiting(), ElementsAre(100, 101, 300, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(repetition.position(), 12);
  EXPECT_EQ(repetition.piece().repetition, 12);
  EXPECT_FALSE(repetition.Advance(5));
  EXPECT_THAT(repetition.waiting(), ElementsAre(2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(repetition.position(), 17);
  EXPECT_TRUE(repetition.Advance(8));
  EXPECT_EQ(repetition.piece().first, 10);
  EXPECT_EQ(repetition.piece().last, 12);
  // Found by the eight tokens before it.
  EXPECT_THAT(repetition.waiting(), ElementsAre(200, 2, 3, 4, 5, 6, 7, 8, 9, 300, 10, 11));
  EXPECT_EQ(repetition.position(), 12);
  EXPECT_FALSE(repetition.done());
  EXPECT_TRUE(repetition.Advance(12));
  EXPECT_TRUE(repetition.done());
}

TEST(RepetitionTest, ALaterTurnsPartIsAskedForByWhatIsBeforeIt) {
  const std::vector<int32_t> context = Context(6);
  const Repetition repetition(kWords, context, 3, 10);
  EXPECT_THAT(repetition.waiting(), ElementsAre(200, 0, 1, 2, 300, 3, 4, 5));
  EXPECT_TRUE(Repetition(kWords, context, 6, 10).done());
}

TEST(RepetitionTest, NoPieceIsLongerThanItsBound) {
  const std::vector<int32_t> context = Context(40);
  for (Repetition repetition(kWords, context, 0, 7); !repetition.done();) {
    const auto waiting = static_cast<int32_t>(repetition.waiting().size());
    EXPECT_LE(waiting, Repetition::MostTokens(kWords, 7));
    repetition.Advance(waiting);
  }
  EXPECT_EQ(Repetition::MostTokens(kWords, 7), 9 + 1 + 7);
}

}  // namespace
}  // namespace tidepool
