// Four-bit codes of keys: an index from which q.k is estimated without the key (recall.md section 4, `k4`). A segment
// of up to kBlockTokens keys of one (layer, kv head) has a range for each channel; code = round((x - minimum) / scale),
// 0 to 15.
//
// Codes of a segment: tiles of 16 tokens, each [head_dim][8] bytes; token t of a tile is the low nibble of byte t for t
// < 8, the high nibble of byte t - 8 else, so that a vector of 16 tokens unpacks without a shuffle.
#ifndef TIDEPOOL_POLICIES_RECALL_K4_CODE_H_
#define TIDEPOOL_POLICIES_RECALL_K4_CODE_H_

#include <cstddef>
#include <cstdint>

namespace tidepool {

inline constexpr int kK4TileTokens = 16;

// Tiles and bytes of a segment of `tokens` keys; the last tile is padded with code 0.
inline constexpr int K4Tiles(int tokens) { return (tokens + kK4TileTokens - 1) / kK4TileTokens; }
inline constexpr size_t K4CodeBytes(int tokens, int head_dim) {
  return static_cast<size_t>(K4Tiles(tokens)) * head_dim * (kK4TileTokens / 2);
}

// keys [tokens][head_dim] -> codes [K4CodeBytes], minimum and scale [head_dim] each. A constant channel has scale 0.
void EncodeK4(const float* keys, int tokens, int head_dim, uint8_t* codes, float* minimum, float* scale);

// The estimate of query.key of one token, in plain arithmetic: sum_c q_c * minimum_c + sum_c (q_c * scale_c) * code_c.
float EstimateK4(const float* query, const uint8_t* codes, const float* minimum, const float* scale, int head_dim,
                 int token);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RECALL_K4_CODE_H_
