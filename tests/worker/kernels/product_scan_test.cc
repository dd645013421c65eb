#include "worker/kernels/cpu/product_scan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "policies/recall/product_code.h"

namespace tidepool {
namespace {

// The scan adds a row's entries in the order of its groups, or as whole numbers, as the plain estimate does: the same
// bits.
TEST(ProductScanTest, EqualsThePlainEstimateBitForBit) {
  for (const ProductShape shape : {ProductShape{64, 16, 4}, ProductShape{64, 8, 8}, ProductShape{128, 32, 4}}) {
    for (int queries : {1, 3, 4, 9}) {
      const int rows = 80;
      std::mt19937 random(queries);
      std::normal_distribution<float> normal;
      std::vector<uint8_t> codes(shape.CodeBytes(rows));
      for (uint8_t& code : codes) code = static_cast<uint8_t>(random());
      const size_t size = static_cast<size_t>(shape.groups) * shape.centroids();
      std::vector<float> tables(queries * size), scores(static_cast<size_t>(queries) * rows, -1);
      for (float& entry : tables) entry = normal(random);
      std::vector<RoundedScoreTable> rounded(queries);
      std::vector<const uint8_t*> entries;
      std::vector<float> offset, step;
      std::vector<const float*> table;
      std::vector<float*> out;
      for (int i = 0; i < queries; ++i) {
        table.push_back(tables.data() + i * size);
        if (shape.bits == 4) RoundScoreTable(shape, table[i], rounded[i]);
        entries.push_back(rounded[i].entry.data());
        offset.push_back(rounded[i].offset);
        step.push_back(rounded[i].step);
        out.push_back(scores.data() + i * rows);
      }
      ProductScanTask task;
      task.codes = codes.data();
      task.tiles = rows / kProductTileRows;
      task.groups = shape.groups;
      task.bits = shape.bits;
      task.queries = queries;
      task.tables = table.data();
      task.entries = entries.data();
      task.offset = offset.data();
      task.step = step.data();
      task.scores = out.data();
      ScanProductCodes(task);
      for (int i = 0; i < queries; ++i) {
        for (int row = 0; row < rows; ++row) {
          ASSERT_EQ(out[i][row], shape.bits == 4 ? EstimateProduct(shape, rounded[i], codes.data(), row)
                                                 : EstimateProduct(shape, table[i], codes.data(), row))
              << "query " << i << " row " << row;
        }
      }
    }
  }
}

TEST(ProductScanTest, RoundedTablesEqualThePlainOnesBitForBit) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const ProductShape shape : {ProductShape{64, 16, 4}, ProductShape{128, 32, 4}, ProductShape{64, 32, 4}}) {
    std::mt19937 random(shape.groups);
    std::normal_distribution<float> normal;
    std::vector<float> keys(200 * shape.head_dim), weight(shape.head_dim, 1.0f);
    for (float& x : keys) x = normal(random);
    const ProductTables tables = TrainProductTables(shape, keys, weight);
    for (const float odd : {1.0f, 0.0f, inf, -inf, std::nanf(""), 1e30f, 1e38f}) {
      std::vector<float> query(shape.head_dim);
      for (float& x : query) x = odd == 0 ? 0 : normal(random);
      query[5] *= odd;
      const size_t size = static_cast<size_t>(shape.groups) * 16;
      std::vector<float> plain(size), own(size);
      ProductScoreTable(shape, tables, query.data(), plain.data());
      RoundedScoreTable expected;
      RoundScoreTable(shape, plain.data(), expected);
      std::vector<uint8_t> entries(size, 7);
      const RoundedScale scale =
          RoundedProductTable({shape.groups, shape.width(), tables.channel.data(), tables.centroid.data(),
                               tables.offset.data(), tables.scale.data(), query.data(), own.data(), entries.data()});
      ASSERT_EQ(entries, expected.entry) << odd;
      ASSERT_EQ(scale.step, expected.step) << odd;
      if (scale.step > 0) {
        ASSERT_EQ(scale.offset, expected.offset) << odd;
      }
    }
  }
}

}  // namespace
}  // namespace tidepool
