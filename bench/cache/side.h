// One of the systems that bench/cache compares: it stores values and reads them back over a connection to a process of
// its own.
#ifndef TIDEPOOL_BENCH_CACHE_SIDE_H_
#define TIDEPOOL_BENCH_CACHE_SIDE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "bench/cache/items.h"

namespace tidepool::bench {

// What was read, in the order asked, each as the parts that it came in.
using ReadValues = std::vector<std::vector<std::string_view>>;

class Side {
 public:
  virtual ~Side() = default;
  virtual std::string name() const = 0;
  virtual int pid() const = 0;  // of the process at the other end

  // Stores the items; returns when all are acknowledged.
  virtual void Put(absl::Span<const Item> items) = 0;
  // What Put needs and a caller would have anyway (a value of his own to give away), made before the clock starts.
  virtual void PreparePut(absl::Span<const Item> items) {}

  // Reads items that were put before. The bytes stay until the next call.
  virtual ReadValues Get(absl::Span<const Item> items) = 0;
  // Ends the process where what Get gave differs from what was put.
  virtual void Compare(const ReadValues& read, absl::Span<const Item> items);
};

// Sends and receives values as raw gRPC messages without storing anything: the limit of what is built on gRPC.
// `callback`: by the callback API on both sides, else by the synchronous one.
std::unique_ptr<Side> MakeRawSide(bool callback, bool unix_socket);
// The same, by the callback API, with what no cache can do without: who receives a value copies it into memory and
// verifies it.
std::unique_ptr<Side> MakeKeptSide(bool unix_socket);
// `memory_bytes`: of the cache.
std::unique_ptr<Side> MakeTidepoolSide(int kv_heads, size_t memory_bytes, bool unix_socket);
// `depth`: commands under way at a time. Keeps kMemoryTurns turns.
std::unique_ptr<Side> MakeRedisSide(int depth, bool unix_socket);
// `python`: one that mooncake_peer.py can run in. Over TCP.
std::unique_ptr<Side> MakeMooncakeSide(const std::string& python);

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_SIDE_H_
