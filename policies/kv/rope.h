// A model's rotary position embedding.
#ifndef TIDEPOOL_POLICIES_KV_ROPE_H_
#define TIDEPOOL_POLICIES_KV_ROPE_H_

#include <vector>

namespace tidepool {

// Pair i of a head's first 2 * frequencies.size() channels turns by position * frequencies[i], and is multiplied by
// magnitude; the other channels stay.
struct Rope {
  std::vector<float> frequencies;
  bool neox = false;  // pairs (i, pairs + i); else neighbours (2 i, 2 i + 1)
  float magnitude = 1;
};

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_KV_ROPE_H_
