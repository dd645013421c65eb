#include "cacheservice/shards/recall_merge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "tests/support/blocks.h"

namespace tidepool {
namespace {

constexpr size_t kRowBytes = 4;

// The row of a token of a selection: nothing else has these bytes.
std::string Row(uint32_t selection, int token) {
  std::string row(kRowBytes, '\0');
  row[0] = static_cast<char>(selection);
  row[1] = static_cast<char>(token);
  row[2] = static_cast<char>(selection ^ token ^ 0x5a);
  return row;
}
uint32_t ChecksumOf(uint32_t selection, int token) { return selection * 1000 + static_cast<uint32_t>(token); }

struct Part {
  std::vector<uint32_t> indices;
  RecalledRows rows;
};

Part Answer(std::vector<uint32_t> indices, const std::vector<uint64_t>& found) {
  Part part;
  part.rows.found = found;
  for (size_t i = 0; i < indices.size(); ++i) {
    for (int token = 0; token < 64; ++token) {
      if ((found[i] >> token & 1) == 0) continue;
      part.rows.rows += Row(indices[i], token);
      part.rows.row_checksums.push_back(ChecksumOf(indices[i], token));
    }
  }
  part.indices = std::move(indices);
  return part;
}

std::vector<RowSelection> Selections(const std::vector<uint64_t>& masks) {
  std::vector<RowSelection> selections;
  for (size_t i = 0; i < masks.size(); ++i) {
    selections.push_back({.block = {test::NumberedKey(static_cast<int>(i)), 0}, .kv_head = 0, .row_mask = masks[i]});
  }
  return selections;
}

void ExpectRows(const RecalledRows& whole, const std::vector<uint64_t>& found) {
  EXPECT_EQ(whole.found, found);
  std::string rows;
  std::vector<uint32_t> checksums;
  for (uint32_t i = 0; i < found.size(); ++i) {
    for (int token = 0; token < 64; ++token) {
      if ((found[i] >> token & 1) == 0) continue;
      rows += Row(i, token);
      checksums.push_back(ChecksumOf(i, token));
    }
  }
  EXPECT_EQ(whole.rows, rows);
  EXPECT_EQ(whole.row_checksums, checksums);
}

TEST(RecallMergeTest, PartsGiveTheSameInAllOrders) {
  const std::vector<uint64_t> masks = {0b1011, 0, 0xf000000000000001, 0b1};
  const std::vector<Part> parts = {
      Answer({0, 2}, {0b0010, 0x8000000000000001}),  // half of it
      Answer({3}, {0b1}), Answer({1}, {0}),
      Answer({2, 0}, {0x7000000000000000, 0b1001}),  // the rest, the other way round
  };
  std::vector<size_t> order(parts.size());
  std::iota(order.begin(), order.end(), 0);
  do {
    RecallMerge merge(Selections(masks), kRowBytes);
    for (const size_t part : order) merge.Add(parts[part].indices, parts[part].rows);
    for (size_t i = 0; i < masks.size(); ++i) EXPECT_EQ(merge.Missing(i), 0u);
    ExpectRows(std::move(merge).Finish(), masks);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(RecallMergeTest, WhatNobodyHasIsMissing) {
  RecallMerge merge(Selections({0b11, 0b11}), kRowBytes);
  const Part part = Answer({1}, {0b10});
  merge.Add(part.indices, part.rows);
  EXPECT_EQ(merge.Missing(0), 0b11u);
  EXPECT_EQ(merge.Missing(1), 0b01u);
  ExpectRows(std::move(merge).Finish(), {0, 0b10});
}

TEST(RecallMergeTest, RowsThatCameTwiceOrUnaskedAreGivenOnce) {
  RecallMerge merge(Selections({0b0110}), kRowBytes);
  for (const uint64_t mask : {0b1010, 0b0110, 0b0110}) {
    const Part part = Answer({0}, {mask});
    merge.Add(part.indices, part.rows);
  }
  ExpectRows(std::move(merge).Finish(), {0b0110});
}

TEST(RecallMergeTest, RandomSplitsOfRandomRecallsComeBackWhole) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<uint64_t> masks(1 + random() % 20), left, found(masks.size(), 0);
    for (uint64_t& mask : masks) mask = random() & random();
    left = masks;
    RecallMerge merge(Selections(masks), kRowBytes);
    for (int part = 0; part < 5; ++part) {
      std::vector<uint32_t> indices;
      std::vector<uint64_t> came;
      for (uint32_t i = 0; i < masks.size(); ++i) {
        if (random() % 2 == 0) continue;
        indices.push_back(i);
        came.push_back(left[i] & random());
        left[i] &= ~came.back();
        found[i] |= came.back();
      }
      const Part answer = Answer(indices, came);
      merge.Add(answer.indices, answer.rows);
    }
    SCOPED_TRACE(seed);
    ExpectRows(std::move(merge).Finish(), found);
  }
}

}  // namespace
}  // namespace tidepool
