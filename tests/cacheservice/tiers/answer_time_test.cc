#include "cacheservice/tiers/answer_time.h"

#include <gtest/gtest.h>

namespace tidepool {
namespace {

TEST(AnswerTimeTest, WithoutADeadlineThereIsAlwaysTimeAndAfterItNone) {
  AnswerTime unlimited(absl::InfiniteFuture()), over(absl::InfinitePast()), just_over(absl::Now());
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(unlimited.ForMore());
    EXPECT_FALSE(over.ForMore());
    EXPECT_FALSE(just_over.ForMore());
  }
}

// What takes as long as the piece before would end after the deadline, if only by the way of the answer.
TEST(AnswerTimeTest, NothingIsBegunThatWouldMakeTheAnswerLate) {
  const absl::Time start = absl::Now(), deadline = start + absl::Milliseconds(400);
  AnswerTime time(deadline);
  ASSERT_TRUE(time.ForMore());
  while (absl::Now() < start + absl::Milliseconds(300)) {
  }
  EXPECT_FALSE(time.ForMore()) << "three quarters of the time are over";
}

}  // namespace
}  // namespace tidepool
