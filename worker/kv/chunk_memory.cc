#include "worker/kv/chunk_memory.h"

namespace tidepool {

uint8_t* ChunkMemory::Take() {
  MutexLock lock(&mutex_);
  if (free_.empty()) return memory_.Take(chunk_bytes_);
  uint8_t* const chunk = free_.back();
  free_.pop_back();
  return chunk;
}

void ChunkMemory::Give(absl::Span<uint8_t* const> chunks) {
  MutexLock lock(&mutex_);
  free_.insert(free_.end(), chunks.begin(), chunks.end());
}

}  // namespace tidepool
