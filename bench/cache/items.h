// The values that bench/cache moves: blocks of 64 tokens, the same ones in every process.
#ifndef TIDEPOOL_BENCH_CACHE_ITEMS_H_
#define TIDEPOOL_BENCH_CACHE_ITEMS_H_

#include <memory>
#include <string>
#include <vector>

#include "cacheservice/api/block_cache.h"
#include "policies/kv/kv_layout.h"

namespace tidepool::bench {

struct Item {
  BlockId id;
  std::shared_ptr<const std::string> value;
};

// Of one model: values of kv_heads x 32 KiB, and 24 bytes and a checksum for each row of 512 bytes.
KvLayout ItemLayout(int kv_heads);

// Values 0 to count - 1 of a size. Their ids differ in each `turn`; their bytes do not.
std::vector<Item> MakeItems(int kv_heads, int count, int turn);

// What the memory of a cache holds while it is measured: it has been full before, so what enters takes the place of
// what leaves, as in a cache that has run for a while. Turns come again after `kTurns` of them; by then memory has
// given them up, and the disk, where there is one, has them.
inline constexpr size_t kMemoryTurns = 6;
inline constexpr int kTurns = 16;

// How many values fill a turn.
int ItemsIn(int kv_heads, size_t turn_bytes);

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_ITEMS_H_
