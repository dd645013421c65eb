// A tidepool-cache of bench/cache's own, and what is done with it.
#ifndef TIDEPOOL_BENCH_CACHE_TIDEPOOL_SERVER_H_
#define TIDEPOOL_BENCH_CACHE_TIDEPOOL_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "bench/cache/items.h"
#include "bench/cache/server_process.h"
#include "cacheservice/remote/remote_cache.h"

namespace tidepool::bench {

class TidepoolServer {
 public:
  TidepoolServer(int kv_heads, size_t memory_bytes, bool unix_socket);

  std::unique_ptr<RemoteCache> Connect() const;
  int pid() const { return process_.pid(); }

 private:
  const int kv_heads_;
  const ServerProcess process_;
};

// Values to give away.
std::vector<std::string> CopiesOf(absl::Span<const Item> items);
// Returns when all are acknowledged.
void OffloadAll(RemoteCache* cache, absl::Span<const Item> items, std::vector<std::string> values);

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_TIDEPOOL_SERVER_H_
