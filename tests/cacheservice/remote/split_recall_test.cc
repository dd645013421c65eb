#include "cacheservice/remote/split_recall.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "cacheservice/wire/messages.h"
#include "tests/support/blocks.h"

namespace tidepool {
namespace {

std::vector<RowSelection> Selections(size_t count, uint64_t row_mask) {
  return std::vector<RowSelection>(count, RowSelection{{test::NumberedKey(1), 0}, 0, row_mask});
}

RecalledRows Rows(std::vector<uint64_t> found, std::string rows, std::vector<uint32_t> checksums) {
  RecalledRows recalled;
  recalled.found = std::move(found);
  recalled.rows = std::move(rows);
  recalled.row_checksums = std::move(checksums);
  return recalled;
}

TEST(SplitRecallTest, ARequestHoldsAsManySelectionsAndBytesAsTheServiceTakes) {
  const size_t most = kMaxWireSelections;
  EXPECT_EQ(FitsOneRequest(Selections(most, 1), 0, 64), most);
  EXPECT_EQ(FitsOneRequest(Selections(most + 9, 1), 0, 64), most);
  EXPECT_EQ(FitsOneRequest(Selections(most + 9, 1), most, 64), 9u);
  EXPECT_EQ(FitsOneRequest(Selections(most, 1), most, 64), 0u);
  const size_t row_bytes = 512;
  const size_t fit = kMaxWireRecallBytes / (64 * row_bytes);
  EXPECT_EQ(FitsOneRequest(Selections(fit, ~uint64_t{0}), 0, row_bytes), fit);
  EXPECT_EQ(FitsOneRequest(Selections(fit + 1, ~uint64_t{0}), 0, row_bytes), fit);
  EXPECT_EQ(FitsOneRequest(Selections(3, ~uint64_t{0}), 0, kMaxWireRecallBytes), 1u) << "always one, or it never ends";
}

TEST(SplitRecallTest, PartsComeBackInTheirOrderHoweverTheyArrive) {
  std::optional<absl::StatusOr<RecalledRows>> whole;
  int calls = 0;
  std::vector<RecallDone> dones = JoinRecalls({2, 1}, [&](absl::StatusOr<RecalledRows> rows) {
    ++calls;
    whole = std::move(rows);
  });
  ASSERT_EQ(dones.size(), 2u);
  dones[1](Rows({4}, "c", {30}));
  EXPECT_EQ(calls, 0);
  dones[0](Rows({1, 2}, "ab", {10, 20}));
  ASSERT_EQ(calls, 1);
  ASSERT_TRUE((*whole).ok());
  EXPECT_TRUE((*whole)->complete);
  EXPECT_EQ((*whole)->found, (std::vector<uint64_t>{1, 2, 4}));
  EXPECT_EQ((*whole)->rows, "abc");
  EXPECT_EQ((*whole)->row_checksums, (std::vector<uint32_t>{10, 20, 30}));
}

TEST(SplitRecallTest, AFailedPartIsSelectionsOfWhichNothingCame) {
  std::optional<absl::StatusOr<RecalledRows>> whole;
  std::vector<RecallDone> dones =
      JoinRecalls({2, 1}, [&](absl::StatusOr<RecalledRows> rows) { whole = std::move(rows); });
  dones[0](absl::UnavailableError("away"));
  dones[1](Rows({4}, "c", {30}));
  ASSERT_TRUE((*whole).ok());
  EXPECT_FALSE((*whole)->complete) << "what is missing may be stored";
  EXPECT_EQ((*whole)->found, (std::vector<uint64_t>{0, 0, 4}));
  EXPECT_EQ((*whole)->rows, "c");
}

TEST(SplitRecallTest, WhenAllPartsFailTheFirstFailureIsTheAnswer) {
  std::optional<absl::StatusOr<RecalledRows>> whole;
  std::vector<RecallDone> dones =
      JoinRecalls({2, 1}, [&](absl::StatusOr<RecalledRows> rows) { whole = std::move(rows); });
  dones[1](absl::DeadlineExceededError("second"));
  dones[0](absl::UnavailableError("first"));
  EXPECT_EQ((*whole).status(), absl::UnavailableError("first"));
}

}  // namespace
}  // namespace tidepool
