#include "policies/recall/product_code.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace tidepool {
namespace {

// Correlated keys: a few directions carry most of what differs, as in a model's keys.
std::vector<float> Keys(int rows, int head_dim, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> mixing(8 * static_cast<size_t>(head_dim));
  for (float& x : mixing) x = normal(random);
  std::vector<float> keys;
  for (int row = 0; row < rows; ++row) {
    float factor[8];
    for (int f = 0; f < 8; ++f) factor[f] = normal(random) * (f == 0 ? 3.0f : 1.0f);
    for (int c = 0; c < head_dim; ++c) {
      float x = 0.3f * normal(random) + 2;
      for (int f = 0; f < 8; ++f) x += factor[f] * mixing[f * head_dim + c] * 0.3f;
      keys.push_back(x);
    }
  }
  return keys;
}

double Dot(const float* a, const float* b, int size) {
  double sum = 0;
  for (int i = 0; i < size; ++i) sum += double{a[i]} * b[i];
  return sum;
}

class ProductCodeTest : public testing::TestWithParam<ProductShape> {};

TEST_P(ProductCodeTest, EveryChannelHasOnePlace) {
  const ProductShape shape = GetParam();
  const std::vector<float> keys = Keys(300, shape.head_dim, 1), weight(shape.head_dim, 1.0f);
  const ProductTables tables = TrainProductTables(shape, keys, weight);
  EXPECT_EQ(std::set<uint8_t>(tables.channel.begin(), tables.channel.end()).size(), shape.head_dim * size_t{1});
  EXPECT_EQ(tables.centroid.size(), static_cast<size_t>(shape.head_dim) * shape.centroids());
}

// The code of a row is, in every group, the nearest centroid of all by the weighted distance.
TEST_P(ProductCodeTest, CodesAreTheNearestCentroids) {
  const ProductShape shape = GetParam();
  const int head_dim = shape.head_dim, rows = 32;
  const std::vector<float> keys = Keys(400, head_dim, 2);
  std::vector<float> weight(head_dim);
  for (int c = 0; c < head_dim; ++c) weight[c] = 0.5f + c % 5;
  const ProductTables tables = TrainProductTables(shape, keys, weight);
  std::vector<uint8_t> codes(shape.CodeBytes(rows), 0xff);
  EncodeProduct(shape, tables, keys.data(), rows, codes.data());
  std::vector<float> unit(head_dim), table(static_cast<size_t>(shape.groups) * shape.centroids());
  for (int row = 0; row < rows; ++row) {
    for (int g = 0; g < shape.groups; ++g) {
      double chosen = 0, best = INFINITY;
      std::vector<double> decoded(shape.width());
      for (int i = 0; i < shape.width(); ++i) {  // what the codes stand for, read through the estimate
        const int channel = tables.channel[g * shape.width() + i];
        std::fill(unit.begin(), unit.end(), 0.0f);
        unit[channel] = 1;
        ProductScoreTable(shape, tables, unit.data(), table.data());
        const double error = weight[channel] *
                             (EstimateProduct(shape, table.data(), codes.data(), row) - keys[row * head_dim + channel]);
        chosen += error * error;
      }
      for (int c = 0; c < shape.centroids(); ++c) {
        double distance = 0;
        for (int i = 0; i < shape.width(); ++i) {
          const int place = g * shape.width() + i, channel = tables.channel[place];
          const double value =
              tables.offset[place] + double{tables.scale[place]} * tables.centroid[place * shape.centroids() + c];
          const double error = weight[channel] * (value - keys[row * head_dim + channel]);
          distance += error * error;
        }
        best = std::min(best, distance);
      }
      ASSERT_NEAR(chosen, best, 1e-3 * (best + 1e-3)) << "row " << row << " group " << g;
    }
  }
}

TEST_P(ProductCodeTest, EstimatesExplainMostOfTheDifferencesBetweenRows) {
  const ProductShape shape = GetParam();
  const int head_dim = shape.head_dim, rows = 512;
  const std::vector<float> keys = Keys(rows, head_dim, 3), query = Keys(1, head_dim, 4);
  std::vector<float> weight(head_dim);
  for (int c = 0; c < head_dim; ++c) weight[c] = std::abs(query[c]);
  const ProductTables tables = TrainProductTables(shape, keys, weight);
  std::vector<uint8_t> codes(shape.CodeBytes(rows));
  EncodeProduct(shape, tables, keys.data(), rows, codes.data());
  std::vector<float> table(static_cast<size_t>(shape.groups) * shape.centroids());
  ProductScoreTable(shape, tables, query.data(), table.data());
  double mean = 0, variance = 0, error = 0;
  for (int row = 0; row < rows; ++row) mean += Dot(query.data(), keys.data() + row * head_dim, head_dim) / rows;
  for (int row = 0; row < rows; ++row) {
    const double exact = Dot(query.data(), keys.data() + row * head_dim, head_dim);
    const double estimate = EstimateProduct(shape, table.data(), codes.data(), row);
    variance += (exact - mean) * (exact - mean);
    error += (exact - estimate) * (exact - estimate);
  }
  EXPECT_LT(error, 0.25 * variance);
}

TEST_P(ProductCodeTest, TheSameKeysGiveTheSameTables) {
  const ProductShape shape = GetParam();
  const std::vector<float> keys = Keys(2000, shape.head_dim, 5), weight(shape.head_dim, 1.0f);
  const ProductTables a = TrainProductTables(shape, keys, weight), b = TrainProductTables(shape, keys, weight);
  EXPECT_EQ(a.centroid, b.centroid);
  EXPECT_EQ(a.channel, b.channel);
}

TEST_P(ProductCodeTest, ConstantKeysAndQueriesOfZeroAreCodedExactly) {
  const ProductShape shape = GetParam();
  std::vector<float> keys;
  for (int row = 0; row < 16; ++row) {
    for (int c = 0; c < shape.head_dim; ++c) keys.push_back(static_cast<float>(c) - 7.5f);
  }
  const ProductTables tables = TrainProductTables(shape, keys, std::vector<float>(shape.head_dim, 0.0f));
  std::vector<uint8_t> codes(shape.CodeBytes(16));
  EncodeProduct(shape, tables, keys.data(), 16, codes.data());
  const std::vector<float> query = Keys(1, shape.head_dim, 6);
  std::vector<float> table(static_cast<size_t>(shape.groups) * shape.centroids());
  ProductScoreTable(shape, tables, query.data(), table.data());
  EXPECT_NEAR(EstimateProduct(shape, table.data(), codes.data(), 11), Dot(query.data(), keys.data(), shape.head_dim),
              1e-3);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ProductCodeTest,
                         testing::Values(ProductShape{64, 16, 4}, ProductShape{64, 8, 8}, ProductShape{128, 32, 4},
                                         ProductShape{32, 4, 8}),
                         [](const testing::TestParamInfo<ProductShape>& info) {
                           return std::to_string(info.param.head_dim) + "Channels" + std::to_string(info.param.groups) +
                                  "Codes" + std::to_string(info.param.bits) + "Bits";
                         });

TEST(RoundedScoreTableTest, IsOffByHalfAStepAGroupAtMost) {
  const ProductShape shape{64, 16, 4};
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> table(shape.groups * 16);
  for (size_t i = 0; i < table.size(); ++i) table[i] = (i / 16 == 3 ? 20.0f : 2.0f) * normal(random);
  std::vector<uint8_t> codes(shape.CodeBytes(64));
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random());
  RoundedScoreTable rounded;
  RoundScoreTable(shape, table.data(), rounded);
  EXPECT_EQ(*std::max_element(rounded.entry.begin(), rounded.entry.end()), 127) << "the widest group uses all steps";
  double error = 0;
  for (int row = 0; row < 64; ++row) {
    const float off =
        EstimateProduct(shape, rounded, codes.data(), row) - EstimateProduct(shape, table.data(), codes.data(), row);
    EXPECT_LE(std::abs(off), shape.groups * 0.501f * rounded.step);
    error += double{off} * off / 64;
  }
  EXPECT_LT(std::sqrt(error), 2.5 * rounded.step) << "errors of groups are independent";
}

TEST(RoundedScoreTableTest, WhatIsNoNumberIsNoIndex) {
  const ProductShape shape{16, 4, 4};
  RoundedScoreTable rounded;
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> table(64, 1.0f);
    table[21] = bad;
    RoundScoreTable(shape, table.data(), rounded);
    for (uint8_t entry : rounded.entry) EXPECT_EQ(entry, 0);
    EXPECT_EQ(rounded.step, 0);
  }
  RoundScoreTable(shape, std::vector<float>(64, 2.0f).data(), rounded);
  EXPECT_EQ(EstimateProduct(shape, rounded, std::vector<uint8_t>(shape.CodeBytes(16), 0x5a).data(), 3), 8.0f);
}

}  // namespace
}  // namespace tidepool
