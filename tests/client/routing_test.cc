#include "client/routing.h"

#include <gtest/gtest.h>

namespace tidepool::client {
namespace {

Candidate Estimated(int64_t prompt, int64_t stored, int64_t waiting, double per_second, int64_t running = 0,
                    int load = 0) {
  v1::EstimateResponse estimate;
  estimate.set_prompt_tokens(prompt);
  estimate.set_stored_tokens(stored);
  estimate.set_waiting_tokens(waiting);
  estimate.set_prompt_tokens_per_second(per_second);
  estimate.set_running_sequences(running);
  return {estimate, load};
}

TEST(RoutingTest, WeightsAreTheSameInEveryClient) {
  // tests/clients/python/client_test.py has these numbers, too.
  EXPECT_EQ(SessionWeight("s", "127.0.0.1:7071"), 1688681860079008847u);
  EXPECT_EQ(SessionWeight("chat-1", "worker-0.example:7071"), 4392175656130317325u);
}

TEST(RoutingTest, TheFirstTokenComesFirstWhereTheLeastIsToBeComputed) {
  // The longer stored prefix, unless its worker has more to read before.
  EXPECT_EQ(FirstTokenFirst({Estimated(1000, 0, 0, 100), Estimated(1000, 960, 0, 100)}), 1);
  EXPECT_EQ(FirstTokenFirst({Estimated(1000, 0, 0, 100), Estimated(1000, 960, 2000, 100)}), 0);
  // A faster worker may have more to do. One that has not read yet counts as the fastest of the others.
  EXPECT_EQ(FirstTokenFirst({Estimated(1000, 0, 0, 100), Estimated(1000, 0, 2000, 1000)}), 1);
  EXPECT_EQ(FirstTokenFirst({Estimated(1000, 0, 100, 100), Estimated(1000, 0, 0, 0)}), 1);
  EXPECT_EQ(FirstTokenFirst({Estimated(1000, 0, 0, 0), Estimated(1000, 0, 100, 0)}), 0);
  // Among equals the least busy, first by what the workers say, then by what this client has asked of them.
  EXPECT_EQ(FirstTokenFirst({Estimated(10, 0, 0, 100, 3), Estimated(10, 0, 0, 100, 2)}), 1);
  EXPECT_EQ(FirstTokenFirst({Estimated(10, 0, 0, 100, 2, 5), Estimated(10, 0, 0, 100, 2, 4)}), 1);
}

TEST(RoutingTest, WhoDoesNotAnswerIsLeftOut) {
  const Candidate silent{absl::UnavailableError("gone"), 0};
  EXPECT_EQ(FirstTokenFirst({silent, Estimated(1000, 0, 9000, 1), silent}), 1);
  EXPECT_EQ(FirstTokenFirst({silent, silent}), -1);
  EXPECT_EQ(FirstTokenFirst({}), -1);
}

}  // namespace
}  // namespace tidepool::client
