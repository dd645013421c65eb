// What of a sequence lies on the device: for each (layer, kv head) its own set of rows. A row keeps its absolute
// position wherever it lies; `order` lists the slots by ascending position, which is the order in which attention adds
// rows up.
//
// Plain slots are those of slot pages: rows in the layout's element type. Packed slots are those of groups of
// kGroupTokens rows at a smaller precision (policies/kv/packed_page.h); a group takes no new rows, what is removed from
// it leaves a hole.
#ifndef TIDEPOOL_WORKER_KV_RESIDENT_ROWS_H_
#define TIDEPOOL_WORKER_KV_RESIDENT_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "base/limits.h"
#include "worker/kv/page_pool.h"

namespace tidepool {

// Why a row is resident: the policy keeps it, or recall brought it and may give its slot to another.
enum class RowKind : uint8_t { kFree, kKept, kRecalled };

// Where kPageSlots slots lie: a slot page, or half of a packed page.
struct SlotPage {
  int32_t page = 0;  // index among the pool's pages of this precision; -1: freed, the slots hold nothing
  KvPrecision precision = KvPrecision::kF16;
  uint8_t half = 0;  // of a packed page
};

// Rows that were packed together.
struct RowGroup {
  KvPrecision precision;
  int32_t page;
  int32_t first_slot;  // of kGroupTokens
  int32_t rows;        // still resident
  // [kGroupTokens] positions by slot: the codes are a function of their exact rows. -1: of none.
  std::vector<int32_t> founders;
};

// The rows of one (layer, kv head).
class HeadRows {
 public:
  // Takes a free plain slot, from a new page when there is none, for `position` (not yet resident).
  int32_t Add(PagePool& pool, int32_t position, RowKind kind);
  // Adds `count` kept rows from first_position on, which is behind all others.
  void Extend(PagePool& pool, int32_t first_position, int32_t count);
  // Add would take no page.
  bool has_free_slot() const { return !free_.empty(); }
  // Takes the page now, if there is no free slot. rows: as many will be added at once.
  void NeedFreeSlot(PagePool& pool, int32_t rows = 1);
  // The plain slot of a resident row is `position`'s (not yet resident) from now on, of the same kind.
  void Replace(int32_t slot, int32_t position);
  // Frees the slot of a resident row. Its page stays until Renumber.
  void Remove(int32_t slot);
  // The same of many, in one pass.
  void RemoveAll(absl::Span<const int32_t> slots);
  // After the backend has moved the i-th plain row by position to the i-th plain slot, for every i: renumbers, plain
  // slots first, and frees the pages that are now empty.
  void Renumber(PagePool& pool);
  void Clear(PagePool& pool);

  // Takes kept plain rows out: kGroupTokens for each group, by ascending position. They are pending until Repack has
  // run and AddGroups has put them into packed pages: so packing never needs more pages than it frees.
  void TakeForGroups(absl::Span<const int32_t> slots);
  // The packed pages of the pending rows, in their order; the caller fills them.
  std::vector<int32_t> AddGroups(PagePool& pool, KvPrecision precision);
  // A group as it was saved: of its founders those in `resident` (ascending) are. Returns the packed page.
  int32_t RestoreGroup(PagePool& pool, KvPrecision precision, std::vector<int32_t> founders,
                       absl::Span<const int32_t> resident);
  // Makes a resident row of a group a plain one again, and marks it as a mixture: its slot. The caller writes the row.
  int32_t MoveToPlain(PagePool& pool, int32_t slot);
  // Makes all rows of a group plain ones, likewise; its page is freed first. Their slots, by their order in the group.
  std::vector<int32_t> DissolveGroup(PagePool& pool, size_t group);
  // Moves a packed row to a hole of another group of the same precision; the caller moves its codes.
  void MovePacked(int32_t from, int32_t to);
  // Frees the packed pages of groups that have no rows left.
  void FreeEmptyGroups(PagePool& pool);
  const std::vector<RowGroup>& groups() const { return groups_; }
  bool is_packed(int32_t slot) const { return pages_[slot / kPageSlots].precision != KvPrecision::kF16; }
  int32_t packed_rows() const { return packed_rows_; }

  int32_t rows() const { return static_cast<int32_t>(order_.size()); }
  int32_t recalled_rows() const { return recalled_; }
  int32_t slots() const { return static_cast<int32_t>(position_.size()); }
  // Of the slots, kPageSlots each.
  absl::Span<const SlotPage> pages() const { return pages_; }
  int64_t bytes(const PagePool& pool) const;
  // The first page whose number, or whose slots in use, changed since it was asked last: what a device must be told.
  int32_t TakeTouched() const { return std::exchange(touched_, INT32_MAX); }
  // Has what is asked of each row brought near: a step's weights have pushed it out of the caches.
  void Prefetch() const;
  // Slots by ascending position.
  absl::Span<const int32_t> order() const { return order_; }
  // order()[i] == i for all i.
  bool in_order() const { return in_order_; }
  int32_t position(int32_t slot) const { return position_[slot]; }
  // Plain ones that hold no row, the lowest last.
  absl::Span<const int32_t> free_slots() const { return free_; }
  // By slot; -1: free.
  absl::Span<const int32_t> positions() const { return position_; }
  RowKind kind(int32_t slot) const { return kind_[slot]; }
  void set_kind(int32_t slot, RowKind kind);
  // Slot of `position`, or -1.
  int32_t Find(int32_t position) const;
  // How many rows lie before `position`: a row's index in order().
  int32_t RowAt(int32_t position) const { return static_cast<int32_t>(PlaceOf(position)); }

  // Attention received by each slot's row, one array per query head of the group; empty unless KeepColumnSums. What the
  // queries of decoding steps give is added only with `steps`.
  void KeepColumnSums(int query_heads, bool steps);
  bool keeps_column_sums() const { return query_heads_ > 0; }
  bool adds_steps_to_column_sums() const { return keeps_column_sums() && steps_in_columns_; }
  absl::Span<std::vector<float>> column_sums() { return absl::MakeSpan(sums_).first(query_heads_); }
  absl::Span<const std::vector<float>> column_sums() const { return absl::MakeConstSpan(sums_).first(query_heads_); }
  // Attention that each slot's row receives from the queries of decoding steps from now on, of all query heads of the
  // group together.
  void KeepStepSums();
  void DropStepSums();
  bool keeps_step_sums() const { return sums_.size() > query_heads_; }
  std::vector<float>& step_sums() { return sums_.back(); }
  const std::vector<float>& step_sums() const { return sums_.back(); }
  // Steps whose queries are in it.
  int32_t summed_steps() const { return summed_steps_; }
  void CountSummedStep() { ++summed_steps_; }

  // Slots whose row is a mixture (D2O merged others into it): not to be rebuilt from a stored block.
  std::vector<uint8_t>& merged() { return merged_; }
  const std::vector<uint8_t>& merged() const { return merged_; }

 private:
  struct PendingRow {
    int32_t position;
    std::vector<float> sums;  // of each array
  };

  // The first place in order_ of a row at `position` or after it.
  size_t PlaceOf(int32_t position) const;
  // Of this precision, the one with the last slots; -1: none.
  int32_t LastPage(KvPrecision precision) const;
  // New slots at the end, for `page`; returns the first.
  int32_t AppendSlots(const SlotPage& page);
  int32_t AppendGroup(PagePool& pool, KvPrecision precision, std::vector<int32_t> founders);
  void Place(int32_t slot, int32_t position, RowKind kind);
  // All of Remove but the order and the list of free slots.
  void Vacate(int32_t slot);
  void SortOrder();
  void Touch(int32_t slot) { touched_ = std::min(touched_, slot / kPageSlots); }

  std::vector<SlotPage> pages_;
  std::vector<RowGroup> groups_;
  std::vector<PendingRow> pending_;
  std::vector<int32_t> position_;  // by slot; -1: free
  std::vector<RowKind> kind_;      // by slot
  std::vector<uint8_t> merged_;    // by slot
  std::vector<int32_t> free_;      // free plain slots, the lowest at the back
  std::vector<int32_t> order_;
  std::vector<std::vector<float>> sums_;  // by slot: column sums, then step sums
  size_t query_heads_ = 0;                // that have column sums
  bool steps_in_columns_ = true;
  int32_t summed_steps_ = 0;
  int32_t recalled_ = 0;
  int32_t packed_rows_ = 0;
  int32_t hollow_pages_ = 0;  // entries of pages_ whose packed page was freed
  bool in_order_ = true;
  mutable int32_t touched_ = 0;
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
  int64_t total_bytes() const;
  int64_t total_pages() const { return pool_->Pages(total_bytes()); }  // as slot pages, rounded up
  // Some rows are not as they were computed.
  bool any_packed() const;
  int32_t longest_head() const;  // rows

  // What a backend keeps beside the rows, as long as they live.
  class DeviceState {
   public:
    virtual ~DeviceState() = default;
  };
  std::unique_ptr<DeviceState>& device_state() const { return device_state_; }

 private:
  PagePool* const pool_;
  const int layers_, kv_heads_;
  mutable std::unique_ptr<DeviceState> device_state_;
  std::vector<HeadRows> heads_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_RESIDENT_ROWS_H_
