#include "bench/cache/tidepool_server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mutex.h"

namespace tidepool::bench {

// In order of use, as the others: what was put last is there to be read.
TidepoolServer::TidepoolServer(int kv_heads, size_t memory_bytes, bool unix_socket)
    : kv_heads_(kv_heads),
      process_({"tidepool-cache", "--listen={listen}", "--data-dir={dir}/data", "--memory-policy=lru",
                absl::StrCat("--memory-bytes=", memory_bytes)},
               unix_socket) {}

std::unique_ptr<RemoteCache> TidepoolServer::Connect() const {
  RemoteCacheOptions options;
  options.endpoint = process_.address();
  options.layout = ItemLayout(kv_heads_);
  absl::StatusOr<std::unique_ptr<RemoteCache>> cache = RemoteCache::Connect(options);
  TIDEPOOL_CHECK(cache.ok());
  return *std::move(cache);
}

std::vector<std::string> CopiesOf(absl::Span<const Item> items) {
  std::vector<std::string> values;
  for (const Item& item : items) values.push_back(*item.value);
  return values;
}

void OffloadAll(RemoteCache* cache, absl::Span<const Item> items, std::vector<std::string> values) {
  Mutex mutex;
  CondVar changed;
  size_t left = items.size();
  for (size_t i = 0; i < items.size(); ++i) {
    cache->Offload(items[i].id, std::move(values[i]), {}, [&](const absl::Status& status) {
      TIDEPOOL_CHECK(status.ok());
      MutexLock lock(&mutex);
      if (--left == 0) changed.SignalAll();
    });
  }
  MutexLock lock(&mutex);
  while (left > 0) changed.Wait(&mutex);
}

}  // namespace tidepool::bench
