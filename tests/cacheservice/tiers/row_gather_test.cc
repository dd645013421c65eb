#include "cacheservice/tiers/row_gather.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "base/limits.h"
#include "policies/kv/block_codec.h"
#include "tests/support/blocks.h"

namespace tidepool {
namespace {

using test::NumberedKey;
using test::NumberedValue;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t Bit(int token) { return uint64_t{1} << token; }

std::string RowOf(int number, int layer, int kv_head, int token) {
  const std::string value = NumberedValue(number, layer);
  return std::string(BlockView::Parse(value)->Row(kv_head, token));
}

TEST(RowGatherTest, EachBlockIsNamedOnceInTheOrderOfFirstMention) {
  const std::vector<RowSelection> selections = {{{NumberedKey(2), 0}, 0, 1},
                                                {{NumberedKey(1), 0}, 0, 1},
                                                {{NumberedKey(2), 0}, 1, 3},
                                                {{NumberedKey(2), 1}, 0, 1}};
  const RowGather gather(selections);
  EXPECT_THAT(gather.blocks(),
              ElementsAre(BlockId{NumberedKey(2), 0}, BlockId{NumberedKey(1), 0}, BlockId{NumberedKey(2), 1}));
  EXPECT_EQ(gather.wanted_rows(), 5);
  EXPECT_EQ(gather.found_rows(), 0);
}

TEST(RowGatherTest, RowsComeInTheOrderOfSelectionsAndAscendingTokensWhateverOrderBlocksCame) {
  const std::vector<RowSelection> selections = {{{NumberedKey(1), 0}, 1, Bit(63) | Bit(0) | Bit(7)},
                                                {{NumberedKey(2), 0}, 0, Bit(5)},
                                                {{NumberedKey(1), 0}, 0, Bit(5) | Bit(7)}};
  RowGather gather(selections);
  ASSERT_TRUE(gather.Add(1, NumberedValue(2, 0)).ok());
  ASSERT_TRUE(gather.Add(0, NumberedValue(1, 0)).ok());
  EXPECT_EQ(gather.found_rows(), 6);
  const RecalledRows rows = std::move(gather).Finish();
  EXPECT_EQ(rows.rows, RowOf(1, 0, 1, 0) + RowOf(1, 0, 1, 7) + RowOf(1, 0, 1, 63) + RowOf(2, 0, 0, 5) +
                           RowOf(1, 0, 0, 5) + RowOf(1, 0, 0, 7));
  EXPECT_THAT(rows.found, ElementsAre(Bit(63) | Bit(0) | Bit(7), Bit(5), Bit(5) | Bit(7)));
  ASSERT_EQ(rows.row_checksums.size(), 6u);
  EXPECT_EQ(rows.row_checksums[3], Checksum32(RowOf(2, 0, 0, 5)));
}

TEST(RowGatherTest, RowsOfBlocksThatNeverCameAreLeftOut) {
  const std::vector<RowSelection> selections = {{{NumberedKey(1), 0}, 0, Bit(1)}, {{NumberedKey(2), 0}, 0, Bit(2)}};
  RowGather gather(selections);
  ASSERT_TRUE(gather.Add(1, NumberedValue(2, 0)).ok());
  const RecalledRows rows = std::move(gather).Finish();
  EXPECT_THAT(rows.found, ElementsAre(0u, Bit(2)));
  EXPECT_EQ(rows.rows, RowOf(2, 0, 0, 2));
}

TEST(RowGatherTest, TokensPastTheEndOfAPartialBlockAreNotFound) {
  BlockBuilder builder(test::SmallLayout(), 0, 0, 3);
  const std::string value = std::move(builder).Finish();
  const std::vector<RowSelection> selections = {{{NumberedKey(1), 0}, 0, ~uint64_t{0}}};
  RowGather gather(selections);
  ASSERT_TRUE(gather.Add(0, value).ok());
  EXPECT_EQ(gather.wanted_rows(), 64);
  EXPECT_EQ(gather.found_rows(), 3);
  EXPECT_THAT(std::move(gather).Finish().found, ElementsAre(0b111u));
}

TEST(RowGatherTest, NothingAskedIsNothingFound) {
  RowGather gather({});
  const RecalledRows rows = std::move(gather).Finish();
  EXPECT_TRUE(rows.rows.empty());
  EXPECT_TRUE(rows.found.empty());
}

TEST(RowGatherTest, ADamagedHeaderOrAnotherLayerIsDataLossAndCopiesNothing) {
  const std::vector<RowSelection> selections = {{{NumberedKey(1), 0}, 0, Bit(1)}};
  RowGather gather(selections);
  std::string damaged = NumberedValue(1, 0);
  damaged[9] ^= 1;
  EXPECT_EQ(gather.Add(0, damaged).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(gather.Add(0, NumberedValue(1, 1)).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(gather.found_rows(), 0);
}

// What says where rows lie is found out also where the header's checksum is not looked at: in all blocks but the first.
TEST(RowGatherTest, ADamagedLaterBlockIsDataLoss) {
  const std::vector<RowSelection> selections = {{{NumberedKey(1), 0}, 0, Bit(1)}, {{NumberedKey(2), 0}, 1, Bit(3)}};
  const std::string good = NumberedValue(2, 0);
  std::string of_as_many_rows = good;
  of_as_many_rows[8] = 4;    // kv heads
  of_as_many_rows[12] = 32;  // tokens
  std::string row_checksum = good;
  row_checksum[kBlockHeaderBytes + (kBlockTokens + 3) * sizeof(uint32_t)] ^= 1;
  for (const std::string& damaged : {of_as_many_rows, row_checksum}) {
    RowGather gather(selections);
    ASSERT_TRUE(gather.Add(0, NumberedValue(1, 0)).ok());
    EXPECT_EQ(gather.Add(1, damaged).code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(gather.found_rows(), 1);
    EXPECT_THAT(std::move(gather).Finish().found, ElementsAre(Bit(1), 0u));
  }
}

TEST(RowGatherTest, AKvHeadOutsideTheBlockIsNamed) {
  for (const int kv_head : {-1, 2}) {
    const std::vector<RowSelection> selections = {{{NumberedKey(1), 0}, 0, Bit(1)},
                                                  {{NumberedKey(1), 0}, kv_head, Bit(1)}};
    RowGather gather(selections);
    const absl::Status status = gather.Add(0, NumberedValue(1, 0));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("selections[1].kv_head " + std::to_string(kv_head) + " is not in 0 to 1"));
    EXPECT_EQ(gather.found_rows(), 0) << "nothing was copied";
  }
}

TEST(RowGatherTest, BlocksWithRowsOfOtherSizesAreRefused) {
  KvLayout wide = test::SmallLayout();
  wide.head_dim = 32;
  BlockBuilder builder(wide, 0, 0, 1);
  const std::vector<RowSelection> selections = {{{NumberedKey(1), 0}, 0, 1}, {{NumberedKey(2), 0}, 0, 1}};
  RowGather gather(selections);
  ASSERT_TRUE(gather.Add(0, NumberedValue(1, 0)).ok());
  const absl::Status status = gather.Add(1, std::move(builder).Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rows of 128 bytes, others of 64"));
}

}  // namespace
}  // namespace tidepool
