// Block values of the size that large models have: 262 KB and more, of random bytes that depend on the number only.
#ifndef TIDEPOOL_TESTS_CACHESERVICE_TIERS_WIDE_BLOCKS_H_
#define TIDEPOOL_TESTS_CACHESERVICE_TIERS_WIDE_BLOCKS_H_

#include <cstring>
#include <random>
#include <string>
#include <utility>

#include "cacheservice/api/block_cache.h"
#include "policies/kv/block_codec.h"
#include "tests/support/blocks.h"

namespace tidepool::test {

// kv_heads x 32 KiB, and 24 bytes and the rows' checksums.
inline std::string WideValue(int number, int kv_heads = 8) {
  KvLayout layout = SmallLayout();
  layout.kv_heads = kv_heads;
  layout.head_dim = 128;
  std::mt19937_64 random(static_cast<unsigned>(number));
  BlockBuilder builder(layout, number % 3, 0, kBlockTokens);
  for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
    for (int token = 0; token < kBlockTokens; ++token) {
      char* row = builder.MutableRow(kv_head, token);
      for (size_t at = 0; at < layout.row_bytes(); at += 8) {
        const uint64_t bytes = random();
        std::memcpy(row + at, &bytes, 8);
      }
    }
  }
  return std::move(builder).Finish();
}

inline BlockId WideId(int number) { return {NumberedKey(number), number % 3}; }

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CACHESERVICE_TIERS_WIDE_BLOCKS_H_
