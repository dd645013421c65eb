#include "worker/kv/arrived_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "tests/support/recalled_rows.h"

namespace tidepool {
namespace {

using test::kRowBytes;
using test::RowOf;
using testing::ElementsAre;

// Heads (2, 1), of two blocks, and (5, 0).
std::vector<MissingRows> Groups() {
  return {{.layer = 2, .kv_head = 1, .block = 0, .rows = MissingRows::Bit(1) | MissingRows::Bit(3)},
          {.layer = 2, .kv_head = 1, .block = 1, .rows = MissingRows::Bit(70), .wanted = MissingRows::Bit(70)},
          {.layer = 5, .kv_head = 0, .block = 0, .rows = MissingRows::Bit(8)}};
}

// All that was asked for, but position 3 of (2, 1).
RecalledRows Answer() {
  RecalledRows answer;
  for (const MissingRows& group : Groups()) answer.found.push_back(group.rows & ~MissingRows::Bit(3));
  for (const int32_t position : {1, 70, 8}) {
    answer.rows += RowOf(position);
    answer.row_checksums.push_back(Checksum32(RowOf(position)));
  }
  return answer;
}

std::vector<std::string> Take(ArrivedRows& arrived, int layer, int kv_head) {
  std::vector<std::string> taken;
  ArrivedRows::OfHead* const head = arrived.Find(layer, kv_head);
  if (head == nullptr) return taken;
  arrived.TakeRows(*head, [&](const MissingRows& of, int32_t position, const char* bytes, const absl::Status& why) {
    EXPECT_EQ(of.layer, layer);
    EXPECT_EQ(of.kv_head, kv_head);
    taken.push_back(test::SaidOf(position, bytes, why));
  });
  return taken;
}

TEST(ArrivedRowsTest, EachHeadTakesItsOwnOnce) {
  ArrivedRows arrived(Answer(), Groups(), kRowBytes);
  EXPECT_TRUE(arrived.answered());
  EXPECT_FALSE(arrived.empty());
  EXPECT_EQ(arrived.heads().size(), 2u);
  for (const auto& [layer, kv_head] : {std::pair{0, 0}, {2, 0}, {2, 2}, {5, 1}, {9, 0}}) {
    EXPECT_EQ(arrived.Find(layer, kv_head), nullptr) << layer << " " << kv_head;
  }
  EXPECT_THAT(Take(arrived, 5, 0), ElementsAre("8 " + RowOf(8)));
  EXPECT_EQ(arrived.Find(5, 0), nullptr);
  EXPECT_FALSE(arrived.empty()) << "the other has not";
  EXPECT_THAT(Take(arrived, 2, 1), ElementsAre("1 " + RowOf(1), "3 NOT_FOUND", "70 " + RowOf(70)));
  EXPECT_TRUE(arrived.empty());
}

TEST(ArrivedRowsTest, WhatDidNotComeIsTakenWithItsReason) {
  ArrivedRows late(std::nullopt, Groups(), kRowBytes);
  EXPECT_FALSE(late.answered());
  EXPECT_THAT(Take(late, 5, 0), ElementsAre("8 DEADLINE_EXCEEDED"));
  EXPECT_THAT(Take(late, 2, 1), ElementsAre("1 DEADLINE_EXCEEDED", "3 DEADLINE_EXCEEDED", "70 DEADLINE_EXCEEDED"));
  EXPECT_TRUE(late.empty());

  ArrivedRows failed(absl::UnavailableError("gone"), Groups(), kRowBytes);
  EXPECT_FALSE(failed.answered());
  EXPECT_THAT(Take(failed, 5, 0), ElementsAre("8 UNAVAILABLE"));
}

}  // namespace
}  // namespace tidepool
