// What of a sequence lies on the device: for each (layer, kv head) its own set of rows in slot pages. A row keeps its
// absolute position wherever it lies; `order` lists the slots by ascending position, which is the order in which
// attention adds rows up.
#ifndef TIDEPOOL_WORKER_KV_RESIDENT_ROWS_H_
#define TIDEPOOL_WORKER_KV_RESIDENT_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/kv/page_pool.h"

namespace tidepool {

// Why a row is resident: the policy keeps it, or recall brought it and may give its slot to another.
enum class RowKind : uint8_t { kFree, kKept, kRecalled };

// The rows of one (layer, kv head).
class HeadRows {
 public:
  // Takes a free slot, from a new page when there is none, for `position` (not yet resident).
  int32_t Add(PagePool& pool, int32_t position, RowKind kind);
  // Frees the slot of a resident row. Its page stays until Renumber.
  void Remove(int32_t slot);
  // After the backend has moved row order[i] to slot i for every i: renumbers, and frees the pages that are now empty.
  void Renumber(PagePool& pool);
  void Clear(PagePool& pool);

  int32_t rows() const { return static_cast<int32_t>(order_.size()); }
  int32_t recalled_rows() const { return recalled_; }
  int32_t slots() const { return static_cast<int32_t>(position_.size()); }
  absl::Span<const int32_t> pages() const { return pages_; }
  // Slots by ascending position.
  absl::Span<const int32_t> order() const { return order_; }
  // order()[i] == i for all i.
  bool in_order() const { return in_order_; }
  int32_t position(int32_t slot) const { return position_[slot]; }
  RowKind kind(int32_t slot) const { return kind_[slot]; }
  void set_kind(int32_t slot, RowKind kind);
  // Slot of `position`, or -1.
  int32_t Find(int32_t position) const;

  // Attention received by each slot's row, one array per query head of the group; empty unless KeepColumnSums.
  void KeepColumnSums(int query_heads) { column_sums_.assign(query_heads, std::vector<float>(position_.size(), 0.0f)); }
  bool keeps_column_sums() const { return !column_sums_.empty(); }
  std::vector<std::vector<float>>& column_sums() { return column_sums_; }
  const std::vector<std::vector<float>>& column_sums() const { return column_sums_; }
  // Mean over the group's query heads.
  float ColumnSum(int32_t slot) const;

  // Slots whose row is a mixture (D2O merged others into it): not to be rebuilt from a stored block.
  std::vector<uint8_t>& merged() { return merged_; }
  const std::vector<uint8_t>& merged() const { return merged_; }

 private:
  std::vector<int32_t> pages_;
  std::vector<int32_t> position_;  // by slot; -1: free
  std::vector<RowKind> kind_;      // by slot
  std::vector<uint8_t> merged_;    // by slot
  std::vector<int32_t> free_;      // free slots, the lowest at the back
  std::vector<int32_t> order_;
  std::vector<std::vector<float>> column_sums_;
  int32_t recalled_ = 0;
  bool in_order_ = true;
};

// All layers and kv heads of one sequence. Gives its pages back when it goes.
class SequenceRows {
 public:
  SequenceRows(PagePool* pool, int layers, int kv_heads);
  ~SequenceRows();
  SequenceRows(const SequenceRows&) = delete;
  SequenceRows& operator=(const SequenceRows&) = delete;

  HeadRows& head(int layer, int kv_head) { return heads_[layer * kv_heads_ + kv_head]; }
  const HeadRows& head(int layer, int kv_head) const { return heads_[layer * kv_heads_ + kv_head]; }
  int layers() const { return layers_; }
  int kv_heads() const { return kv_heads_; }
  PagePool& pool() { return *pool_; }

  // Adds `count` new positions, the largest so far, in every (layer, kv head): their rows are the last `count` of each
  // order.
  void Extend(int32_t first_position, int32_t count);
  int64_t total_rows() const;
  int64_t total_pages() const;
  int32_t longest_head() const;  // rows

 private:
  PagePool* const pool_;
  const int layers_, kv_heads_;
  std::vector<HeadRows> heads_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_RESIDENT_ROWS_H_
