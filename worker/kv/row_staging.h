// Rows of one sequence that are kept ready in the worker's host memory, beside the device: what was recalled or fetched
// ahead and may be wanted again. A recall that finds its row here costs a copy, not a round trip. Bounded for each
// (layer, kv head); what is displaced is fetched from the cache service again.
#ifndef TIDEPOOL_WORKER_KV_ROW_STAGING_H_
#define TIDEPOOL_WORKER_KV_ROW_STAGING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "worker/kv/chunk_memory.h"

namespace tidepool {

class RowStaging {
 public:
  static size_t ChunkBytes(size_t row_bytes) { return kChunkRows * row_bytes; }

  // heads: (layer, kv head) pairs. memory: chunks of ChunkBytes; null: its own.
  RowStaging(int heads, size_t row_bytes, std::shared_ptr<ChunkMemory> memory = nullptr);
  ~RowStaging() { Clear(); }
  RowStaging(const RowStaging&) = delete;
  RowStaging& operator=(const RowStaging&) = delete;

  // Rows of each head that are held at most, >= 0; it only grows.
  void Grow(int32_t capacity) { capacity_ = std::max(capacity_, capacity); }
  void Clear();
  int32_t capacity() const { return capacity_; }

  // Calls for different heads may run at once.
  bool Has(int head, int32_t position) const { return StateOf(head, position) >= 0; }
  // Has where the row lies, if it is here, brought near.
  void Prefetch(int head, int32_t position) const {
    const std::vector<int32_t>& slot_of = heads_[head].slot_of;
    if (static_cast<size_t>(position) < slot_of.size()) __builtin_prefetch(slot_of.data() + position);
  }
  // Notes that the row is to be asked for. False when it has been or is here, or is noted and not `wanted` (a row that
  // was noted to be fetched ahead may be wanted before it is asked for).
  bool Note(int head, int32_t position, bool wanted);
  // A noted row is asked for, until Put or Forget; false when it is not noted any more.
  bool Ask(int head, int32_t position);
  // It will not come.
  void Forget(int head, int32_t position);
  // The row, row_bytes long, or null. Marks it as used.
  const char* Find(int head, int32_t position);
  // Keeps a copy; a full head gives up a row that was not used lately (second chance).
  void Put(int head, int32_t position, const char* row);

  int64_t bytes() const;

 private:
  static constexpr int32_t kAbsent = -1, kNoted = -2, kAsked = -3;
  static constexpr int32_t kChunkRows = 16;
  struct Head {
    std::vector<uint8_t*> chunks;   // of kChunkRows slots each
    std::vector<int32_t> position;  // by slot
    std::vector<uint8_t> used;      // by slot, since the hand passed
    std::vector<int32_t> slot_of;   // by position, up to the last one that was held; or one of the above
    size_t hand = 0;
  };

  // Its slot, or why it has none.
  int32_t StateOf(int head, int32_t position) const {
    const std::vector<int32_t>& slot_of = heads_[head].slot_of;
    return static_cast<size_t>(position) < slot_of.size() ? slot_of[position] : kAbsent;
  }
  uint8_t* RowAt(const Head& head, int32_t slot) const {
    return head.chunks[slot / kChunkRows] + static_cast<size_t>(slot % kChunkRows) * row_bytes_;
  }

  const size_t row_bytes_;
  int32_t capacity_ = 0;
  std::vector<Head> heads_;
  // Rows are read from all over it, and every step pushes them out of the caches: small pages would make most reads
  // wait for a translation, too.
  const std::shared_ptr<ChunkMemory> memory_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_ROW_STAGING_H_
