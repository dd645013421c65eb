#include "base/status_macros.h"

#include <gtest/gtest.h>

#include <memory>

namespace tidepool {
namespace {

absl::Status Forward(const absl::Status& status, bool* went_on) {
  TP_RETURN_IF_ERROR(status);
  *went_on = true;
  return absl::OkStatus();
}

absl::StatusOr<int> Sum(const absl::StatusOr<int>& a, const absl::StatusOr<int>& b) {
  TP_ASSIGN_OR_RETURN(const int x, a);
  TP_ASSIGN_OR_RETURN(const int y, b);
  return x + y;
}

TEST(ReturnIfErrorTest, ReturnsTheErrorAndStops) {
  bool went_on = false;
  EXPECT_EQ(Forward(absl::NotFoundError("block"), &went_on), absl::NotFoundError("block"));
  EXPECT_FALSE(went_on);
}

TEST(ReturnIfErrorTest, GoesOnAfterOk) {
  bool went_on = false;
  EXPECT_TRUE(Forward(absl::OkStatus(), &went_on).ok());
  EXPECT_TRUE(went_on);
}

TEST(ReturnIfErrorTest, EvaluatesItsExpressionOnce) {
  int calls = 0;
  auto count = [&] {
    ++calls;
    return absl::OkStatus();
  };
  auto run = [&]() -> absl::Status {
    TP_RETURN_IF_ERROR(count());
    return absl::OkStatus();
  };
  EXPECT_TRUE(run().ok());
  EXPECT_EQ(calls, 1);
}

TEST(AssignOrReturnTest, AssignsTheValues) { EXPECT_EQ(Sum(2, 3).value(), 5); }

TEST(AssignOrReturnTest, ReturnsTheFirstError) {
  EXPECT_EQ(Sum(2, absl::DataLossError("b")).status(), absl::DataLossError("b"));
  EXPECT_EQ(Sum(absl::AbortedError("a"), absl::DataLossError("b")).status(), absl::AbortedError("a"));
}

TEST(AssignOrReturnTest, MovesValuesThatCannotBeCopied) {
  auto make = []() -> absl::StatusOr<std::unique_ptr<int>> { return std::make_unique<int>(7); };
  auto run = [&]() -> absl::StatusOr<int> {
    TP_ASSIGN_OR_RETURN(std::unique_ptr<int> owned, make());
    return *owned;
  };
  EXPECT_EQ(run().value(), 7);
}

}  // namespace
}  // namespace tidepool
