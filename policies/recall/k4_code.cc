#include "policies/recall/k4_code.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tidepool {

void EncodeK4(const float* keys, int tokens, int head_dim, uint8_t* codes, float* minimum, float* scale) {
  std::memset(codes, 0, K4CodeBytes(tokens, head_dim));
  for (int c = 0; c < head_dim; ++c) {
    float low = keys[c], high = keys[c];
    for (int t = 1; t < tokens; ++t) {
      low = std::min(low, keys[t * head_dim + c]);
      high = std::max(high, keys[t * head_dim + c]);
    }
    minimum[c] = low;
    scale[c] = (high - low) / 15.0f;
  }
  for (int t = 0; t < tokens; ++t) {
    uint8_t* tile = codes + static_cast<size_t>(t / kK4TileTokens) * head_dim * 8;
    const int lane = t % kK4TileTokens;
    for (int c = 0; c < head_dim; ++c) {
      const float level = (keys[t * head_dim + c] - minimum[c]) / scale[c];
      // Not a number where the channel is constant or a key is: code 0.
      const int code = level > 0 ? static_cast<int>(std::lround(std::min(level, 15.0f))) : 0;
      tile[c * 8 + lane % 8] |= static_cast<uint8_t>(lane < 8 ? code : code << 4);
    }
  }
}

float EstimateK4(const float* query, const uint8_t* codes, const float* minimum, const float* scale, int head_dim,
                 int token) {
  const uint8_t* tile = codes + static_cast<size_t>(token / kK4TileTokens) * head_dim * 8;
  const int lane = token % kK4TileTokens;
  float sum = 0;
  for (int c = 0; c < head_dim; ++c) {
    const int code = tile[c * 8 + lane % 8] >> (lane < 8 ? 0 : 4) & 15;
    sum += query[c] * minimum[c] + query[c] * scale[c] * static_cast<float>(code);
  }
  return sum;
}

}  // namespace tidepool
