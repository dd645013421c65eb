// Rows of one sequence that are kept ready in the worker's host memory, beside the device: what was recalled or fetched
// ahead and may be wanted again. A recall that finds its row here costs a copy, not a round trip. Bounded for each
// (layer, kv head); what is displaced is fetched from the cache service again.
#ifndef TIDEPOOL_WORKER_KV_ROW_STAGING_H_
#define TIDEPOOL_WORKER_KV_ROW_STAGING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tidepool {

class RowStaging {
 public:
  // heads: (layer, kv head) pairs.
  RowStaging(int heads, size_t row_bytes) : row_bytes_(row_bytes), heads_(heads) {}

  // Rows of each head that are held at most, >= 0; it only grows.
  void Grow(int32_t capacity) { capacity_ = std::max(capacity_, capacity); }
  void Clear();
  int32_t capacity() const { return capacity_; }

  // Calls for different heads may run at once.
  bool Has(int head, int32_t position) const {
    const std::vector<int32_t>& slot_of = heads_[head].slot_of;
    return static_cast<size_t>(position) < slot_of.size() && slot_of[position] >= 0;
  }
  // Notes that the row has been asked for; false when it has been, or is here. Until Put or Forget.
  bool Ask(int head, int32_t position);
  // It will not come.
  void Forget(int head, int32_t position);
  // The row, row_bytes long, or null. Marks it as used.
  const char* Find(int head, int32_t position);
  // Keeps a copy; a full head gives up a row that was not used lately (second chance).
  void Put(int head, int32_t position, const char* row);

  int64_t bytes() const;

 private:
  static constexpr int32_t kAbsent = -1, kAsked = -2;
  struct Head {
    std::string rows;               // [slot][row_bytes]
    std::vector<int32_t> position;  // by slot
    std::vector<uint8_t> used;      // by slot, since the hand passed
    std::vector<int32_t> slot_of;   // by position, up to the last one that was held; kAbsent, kAsked
    size_t hand = 0;
  };

  const size_t row_bytes_;
  int32_t capacity_ = 0;
  std::vector<Head> heads_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_ROW_STAGING_H_
