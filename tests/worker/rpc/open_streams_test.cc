#include "worker/rpc/open_streams.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace tidepool {
namespace {

TEST(OpenStreamsTest, ClosingWaitsUntilAllHaveLeft) {
  OpenStreams open;
  EXPECT_TRUE(open.Enter());
  EXPECT_TRUE(open.Enter());
  bool left = false;
  std::thread last([&] {
    open.Leave();
    left = true;
    open.Leave();
  });
  open.Close(std::chrono::minutes(1));  // before or after they leave
  EXPECT_TRUE(left);
  last.join();
}

TEST(OpenStreamsTest, ClosedRefusesAndWaitsNoLongerThanItsGrace) {
  OpenStreams open;
  EXPECT_TRUE(open.Enter());
  EXPECT_TRUE(open.Close(std::chrono::milliseconds(1))) << "one is left";
  EXPECT_FALSE(open.Enter());
  open.Leave();
  open.Leave();
  EXPECT_FALSE(open.Close(std::chrono::minutes(1)));
}

}  // namespace
}  // namespace tidepool
