// Block values with random rows, for tests of what stores them.
#ifndef TIDEPOOL_TESTS_SUPPORT_BLOCKS_H_
#define TIDEPOOL_TESTS_SUPPORT_BLOCKS_H_

#include <random>
#include <string>
#include <utility>

#include "cacheservice/api/block_cache.h"
#include "policies/kv/block_codec.h"
#include "policies/kv/kv_layout.h"

namespace tidepool::test {

inline KvLayout SmallLayout() {
  KvLayout layout;
  layout.model_fingerprint = "test-model";
  layout.layers = 3;
  layout.kv_heads = 2;
  layout.head_dim = 16;
  return layout;
}

// A key that only `number` gives.
inline BlockKey NumberedKey(int number) {
  const int32_t token = number;
  return ChildBlockKey("salt", SmallLayout(), kExactLineage, BlockKey{}, {&token, 1});
}

// Of 64 tokens; the bytes depend on number and layer only.
inline std::string NumberedValue(int number, int layer) {
  const KvLayout layout = SmallLayout();
  std::mt19937 random(static_cast<unsigned>(number * 31 + layer));
  BlockBuilder builder(layout, layer, 0, kBlockTokens);
  for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
    for (int token = 0; token < kBlockTokens; ++token) {
      char* row = builder.MutableRow(kv_head, token);
      for (size_t i = 0; i < layout.row_bytes(); ++i) row[i] = static_cast<char>(random());
    }
  }
  return std::move(builder).Finish();
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_BLOCKS_H_
