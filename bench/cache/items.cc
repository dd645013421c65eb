#include "bench/cache/items.h"

#include <algorithm>
#include <map>

#include "base/mutex.h"
#include "tests/cacheservice/tiers/wide_blocks.h"

namespace tidepool::bench {

KvLayout ItemLayout(int kv_heads) {
  KvLayout layout = test::SmallLayout();
  layout.model_fingerprint += std::to_string(kv_heads);
  layout.kv_heads = kv_heads;
  layout.head_dim = 128;
  return layout;
}

std::vector<Item> MakeItems(int kv_heads, int count, int turn) {
  static Mutex mutex;
  static std::map<int, std::vector<std::shared_ptr<const std::string>>> made;  // by kv heads
  MutexLock lock(&mutex);
  std::vector<std::shared_ptr<const std::string>>& values = made[kv_heads];
  while (static_cast<int>(values.size()) < count) {
    values.push_back(std::make_shared<const std::string>(test::WideValue(static_cast<int>(values.size()), kv_heads)));
  }
  std::vector<Item> items(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    items[i].id = {test::NumberedKey(turn * 100'000 + i), test::WideId(i).layer};
    items[i].value = values[i];
  }
  return items;
}

int ItemsIn(int kv_heads, size_t turn_bytes) {
  return std::max(1, static_cast<int>(turn_bytes / (static_cast<size_t>(kv_heads) * 32 * 1024)));
}

}  // namespace tidepool::bench
