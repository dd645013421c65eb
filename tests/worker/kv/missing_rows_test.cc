#include "worker/kv/missing_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/checksum.h"
#include "tests/support/recalled_rows.h"

namespace tidepool {
namespace {

using test::kRowBytes;
using test::RowOf;
using testing::ElementsAre;

std::vector<MissingRows> Groups() {
  std::vector<MissingPosition> positions = {{70, false}, {3, true}, {1, false}};
  std::vector<MissingRows> groups;
  AppendMissing({.slice = 2, .layer = 5, .kv_head = 1}, positions, &groups);
  return groups;
}

// What ForEachRow says of each row.
std::vector<std::string> Taken(const absl::StatusOr<RecalledRows>* answer, absl::Span<const MissingRows> groups) {
  std::vector<std::string> taken;
  const MissingAnswer came(answer, groups, kRowBytes);
  for (size_t g = 0; g < groups.size(); ++g) {
    came.ForEachRow(g, [&](int32_t position, const char* bytes, const absl::Status& why) {
      taken.push_back(test::SaidOf(position, bytes, why));
    });
  }
  return taken;
}

TEST(MissingRowsTest, PositionsBecomeMasksOfTheirBlocks) {
  const std::vector<MissingRows> groups = Groups();
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].block, 0);
  EXPECT_EQ(groups[0].rows, MissingRows::Bit(1) | MissingRows::Bit(3));
  EXPECT_EQ(groups[0].wanted, MissingRows::Bit(3));
  EXPECT_EQ(groups[1].block, 1);
  EXPECT_EQ(groups[1].rows, MissingRows::Bit(70));
  EXPECT_EQ(groups[1].wanted, 0u);
  for (const MissingRows& group : groups) {
    EXPECT_EQ(group.slice, 2);
    EXPECT_EQ(group.layer, 5);
    EXPECT_EQ(group.kv_head, 1);
  }
}

TEST(MissingRowsTest, WhatIsFetchedAheadIsAskedForApart) {
  std::vector<MissingRows> groups = Groups();
  const std::vector<MissingRows> ahead = TakeAhead(groups);
  ASSERT_EQ(ahead.size(), 1u);
  EXPECT_EQ(ahead[0].rows, MissingRows::Bit(70));
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].rows, MissingRows::Bit(1) | MissingRows::Bit(3))
      << "what is in a block with a wanted row comes with it";
  EXPECT_TRUE(TakeAhead(groups).empty());
}

TEST(MissingRowsTest, WhatSeveralStepsMissIsAskedForTogether) {
  std::vector<MissingRows> groups = Groups();
  std::vector<MissingPosition> other = {{5, true}}, later = {{4, true}, {130, false}};
  AppendMissing({.layer = 2, .kv_head = 1}, other, &groups);
  AppendMissing({.slice = 2, .layer = 5, .kv_head = 1}, later, &groups);
  MergeMissing(groups);
  ASSERT_EQ(groups.size(), 4u);
  EXPECT_EQ(groups[0].layer, 2);
  EXPECT_EQ(groups[0].rows, MissingRows::Bit(5));
  EXPECT_EQ(groups[1].layer, 5);
  EXPECT_EQ(groups[1].rows, MissingRows::Bit(1) | MissingRows::Bit(3) | MissingRows::Bit(4));
  EXPECT_EQ(groups[1].wanted, MissingRows::Bit(3) | MissingRows::Bit(4));
  EXPECT_EQ(groups[2].block, 1);
  EXPECT_EQ(groups[3].block, 2);
  groups.clear();
  MergeMissing(groups);
  EXPECT_TRUE(groups.empty());
}

TEST(MissingRowsTest, HeadsAreNotMixedThoughTheirBlocksAreTheSame) {
  std::vector<MissingRows> groups = Groups();
  std::vector<MissingPosition> positions = {{71, true}};
  AppendMissing({.slice = 2, .layer = 5, .kv_head = 2}, positions, &groups);
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[2].kv_head, 2);
  EXPECT_EQ(groups[1].rows, MissingRows::Bit(70));
}

TEST(MissingRowsTest, EachRowIsGivenOrTheReason) {
  const std::vector<MissingRows> groups = Groups();
  RecalledRows rows;
  rows.found = {MissingRows::Bit(3), MissingRows::Bit(70)};
  rows.rows = RowOf(3) + RowOf(70);
  rows.row_checksums = {Checksum32(RowOf(3)), Checksum32(RowOf(70)) + 1};
  absl::StatusOr<RecalledRows> answer = rows;
  EXPECT_THAT(Taken(&answer, groups), ElementsAre("1 NOT_FOUND", "3 dddd", "70 DATA_LOSS"));
  answer->complete = false;
  EXPECT_THAT(Taken(&answer, groups), ElementsAre("1 DEADLINE_EXCEEDED", "3 dddd", "70 DATA_LOSS"));
  answer->rows.resize(kRowBytes);  // too short for what it says
  EXPECT_THAT(Taken(&answer, groups), ElementsAre("1 DEADLINE_EXCEEDED", "3 dddd", "70 DATA_LOSS"));
}

TEST(MissingRowsTest, WithoutAnAnswerNoRowCame) {
  const std::vector<MissingRows> groups = Groups();
  EXPECT_THAT(Taken(nullptr, groups),
              ElementsAre("1 DEADLINE_EXCEEDED", "3 DEADLINE_EXCEEDED", "70 DEADLINE_EXCEEDED"));
  const absl::StatusOr<RecalledRows> away = absl::UnavailableError("away");
  EXPECT_THAT(Taken(&away, groups), ElementsAre("1 UNAVAILABLE", "3 UNAVAILABLE", "70 UNAVAILABLE"));
  const absl::StatusOr<RecalledRows> other = RecalledRows();  // to another question
  EXPECT_THAT(Taken(&other, groups), ElementsAre("1 INTERNAL", "3 INTERNAL", "70 INTERNAL"));
}

}  // namespace
}  // namespace tidepool
