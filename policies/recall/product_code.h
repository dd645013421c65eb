// Product codes of keys: an index of one bit per channel from which q.k is estimated without the key (recall.md section
// 4, after PQCache, arXiv 2407.12820). A row's channels are dealt to groups of equal width; each group of a row is
// replaced by the nearest of 2^bits centroids.
//
// What differs from the published codes, each by measurement (docs/decisions/0005): channels are weighted by the root
// mean square of the queries that have been seen, since an error matters as much as the query that meets it; and groups
// are not neighbouring channels but such that the weighted variances of all groups are alike.
#ifndef TIDEPOOL_POLICIES_RECALL_PRODUCT_CODE_H_
#define TIDEPOOL_POLICIES_RECALL_PRODUCT_CODE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// Rows are coded in tiles of 16, each [groups][16 * bits / 8] bytes. 4 bits: row r of a tile is the low nibble of byte
// r for r < 8, the high nibble of byte r - 8 else. 8 bits: byte r.
inline constexpr int kProductTileRows = 16;

struct ProductShape {
  int head_dim = 0;
  int groups = 0;  // divides head_dim
  int bits = 0;    // 4 or 8

  int width() const { return head_dim / groups; }
  int centroids() const { return 1 << bits; }
  // Codes of `rows` rows, a multiple of kProductTileRows.
  size_t CodeBytes(int rows) const { return static_cast<size_t>(rows) * groups * bits / 8; }
  size_t TableBytes() const { return static_cast<size_t>(head_dim) * (1 + centroids() + 3 * sizeof(float)); }
};

// The tables of one (layer, kv head).
struct ProductTables {
  std::vector<uint8_t> channel;      // [head_dim]: which channel of a key is at place i; group g has the places
                                     // g * width to (g + 1) * width - 1
  std::vector<uint8_t> centroid;     // [head_dim][centroids], by place: offset + scale * centroid is a channel's value
  std::vector<float> offset, scale;  // [head_dim], by place
  std::vector<float> weight;         // [head_dim], by channel, > 0
};

// keys: [rows][head_dim], rows >= 1. weight: [head_dim], how much an error of a channel matters, >= 0. k-means with a
// fixed start and number of rounds over at most 1,024 evenly spaced rows: the same input gives the same tables.
ProductTables TrainProductTables(const ProductShape& shape, absl::Span<const float> keys,
                                 absl::Span<const float> weight);

// keys [rows][head_dim] -> codes, rows a multiple of kProductTileRows. The nearest centroids by the tables' weights,
// ties to the lower one.
void EncodeProduct(const ProductShape& shape, const ProductTables& tables, const float* keys, int rows, uint8_t* codes);

// What each centroid adds to q.k: table [groups][centroids].
void ProductScoreTable(const ProductShape& shape, const ProductTables& tables, const float* query, float* table);

// The estimate of q.k of one row: the sum of its codes' entries, group after group.
float EstimateProduct(const ProductShape& shape, const float* table, const uint8_t* codes, int row);

// A score table of 4-bit codes in seven bits an entry, so that a byte shuffle looks up and a byte adds two of them:
// table[g][c] is about low_g + step * entry[g][c]; offset = sum of low_g. An entry is off by half a step at most, and a
// step is 1/127 of the widest group's range: little beside what the codes themselves leave out.
struct RoundedScoreTable {
  std::vector<uint8_t> entry;  // [groups][16], at most 127
  float offset = 0, step = 0;
};
// table: [groups][16]. What is not a number, or infinite, leaves all entries 0.
void RoundScoreTable(const ProductShape& shape, const float* table, RoundedScoreTable& rounded);
// offset + step * (sum of entries).
float EstimateProduct(const ProductShape& shape, const RoundedScoreTable& table, const uint8_t* codes, int row);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RECALL_PRODUCT_CODE_H_
