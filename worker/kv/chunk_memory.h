// Host memory in chunks of one size, which sequences take and give back. It stays with the worker: what the system is
// asked for anew it clears first, and on a machine that is itself a guest the host may have to find it
// (docs/decisions/0021-extents.md). Safe for any threads.
#ifndef TIDEPOOL_WORKER_KV_CHUNK_MEMORY_H_
#define TIDEPOOL_WORKER_KV_CHUNK_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "base/mutex.h"
#include "worker/kernels/cpu/huge_memory.h"

namespace tidepool {

class ChunkMemory {
 public:
  explicit ChunkMemory(size_t chunk_bytes) : chunk_bytes_(chunk_bytes) {}

  size_t chunk_bytes() const { return chunk_bytes_; }
  // Aligned to 64 bytes; what is in it is not said.
  uint8_t* Take();
  void Give(absl::Span<uint8_t* const> chunks);

 private:
  const size_t chunk_bytes_;
  Mutex mutex_;
  HugeMemory memory_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint8_t*> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_CHUNK_MEMORY_H_
