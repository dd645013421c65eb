#include "worker/kv/resident_rows.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace tidepool {

int32_t HeadRows::Add(PagePool& pool, int32_t position, RowKind kind) {
  if (free_.empty()) {
    const int32_t first = slots();
    pages_.push_back(pool.Allocate());
    position_.resize(first + kPageSlots, -1);
    kind_.resize(first + kPageSlots, RowKind::kFree);
    merged_.resize(first + kPageSlots, 0);
    for (std::vector<float>& sums : column_sums_) sums.resize(first + kPageSlots, 0.0f);
    for (int32_t slot = first + kPageSlots - 1; slot >= first; --slot) free_.push_back(slot);
  }
  const int32_t slot = free_.back();
  free_.pop_back();
  position_[slot] = position;
  kind_[slot] = kind;
  merged_[slot] = 0;
  recalled_ += kind == RowKind::kRecalled;
  for (std::vector<float>& sums : column_sums_) sums[slot] = 0;
  if (order_.empty() || position_[order_.back()] < position) {
    in_order_ = in_order_ && slot == rows();
    order_.push_back(slot);
  } else {
    auto at = std::lower_bound(order_.begin(), order_.end(), position,
                               [this](int32_t s, int32_t p) { return position_[s] < p; });
    TIDEPOOL_CHECK(position_[*at] != position);
    order_.insert(at, slot);
    in_order_ = false;
  }
  return slot;
}

void HeadRows::Remove(int32_t slot) {
  TIDEPOOL_CHECK(kind_[slot] != RowKind::kFree);
  auto at = std::lower_bound(order_.begin(), order_.end(), position_[slot],
                             [this](int32_t s, int32_t p) { return position_[s] < p; });
  TIDEPOOL_CHECK(at != order_.end() && *at == slot);
  in_order_ = in_order_ && at + 1 == order_.end();
  order_.erase(at);
  recalled_ -= kind_[slot] == RowKind::kRecalled;
  position_[slot] = -1;
  kind_[slot] = RowKind::kFree;
  free_.insert(std::lower_bound(free_.begin(), free_.end(), slot, std::greater<int32_t>()), slot);
}

void HeadRows::set_kind(int32_t slot, RowKind kind) {
  recalled_ += (kind == RowKind::kRecalled) - (kind_[slot] == RowKind::kRecalled);
  kind_[slot] = kind;
}

int32_t HeadRows::Find(int32_t position) const {
  auto at = std::lower_bound(order_.begin(), order_.end(), position,
                             [this](int32_t s, int32_t p) { return position_[s] < p; });
  return at != order_.end() && position_[*at] == position ? *at : -1;
}

float HeadRows::ColumnSum(int32_t slot) const {
  float sum = 0;
  for (const std::vector<float>& sums : column_sums_) sum += sums[slot];
  return sum / static_cast<float>(column_sums_.size());
}

void HeadRows::Renumber(PagePool& pool) {
  const int32_t count = rows();
  const int32_t page_count = (count + kPageSlots - 1) / kPageSlots;
  const int32_t slot_count = page_count * kPageSlots;
  std::vector<int32_t> position(slot_count, -1);
  std::vector<RowKind> kind(slot_count, RowKind::kFree);
  std::vector<uint8_t> merged(slot_count, 0);
  for (int32_t i = 0; i < count; ++i) {
    position[i] = position_[order_[i]];
    kind[i] = kind_[order_[i]];
    merged[i] = merged_[order_[i]];
  }
  for (std::vector<float>& sums : column_sums_) {
    std::vector<float> moved(slot_count, 0.0f);
    for (int32_t i = 0; i < count; ++i) moved[i] = sums[order_[i]];
    sums = std::move(moved);
  }
  position_ = std::move(position);
  kind_ = std::move(kind);
  merged_ = std::move(merged);
  for (int32_t i = 0; i < count; ++i) order_[i] = i;
  free_.clear();
  for (int32_t slot = slot_count - 1; slot >= count; --slot) free_.push_back(slot);
  while (static_cast<int32_t>(pages_.size()) > page_count) {
    pool.Free(pages_.back());
    pages_.pop_back();
  }
  in_order_ = true;
}

void HeadRows::Clear(PagePool& pool) {
  for (int32_t page : pages_) pool.Free(page);
  *this = HeadRows();
}

SequenceRows::SequenceRows(PagePool* pool, int layers, int kv_heads)
    : pool_(pool), layers_(layers), kv_heads_(kv_heads), heads_(static_cast<size_t>(layers) * kv_heads) {}

SequenceRows::~SequenceRows() {
  for (HeadRows& head : heads_) head.Clear(*pool_);
}

void SequenceRows::Extend(int32_t first_position, int32_t count) {
  for (HeadRows& head : heads_) {
    for (int32_t i = 0; i < count; ++i) head.Add(*pool_, first_position + i, RowKind::kKept);
  }
}

int64_t SequenceRows::total_rows() const {
  int64_t rows = 0;
  for (const HeadRows& head : heads_) rows += head.rows();
  return rows;
}

int64_t SequenceRows::total_pages() const {
  int64_t pages = 0;
  for (const HeadRows& head : heads_) pages += static_cast<int64_t>(head.pages().size());
  return pages;
}

int32_t SequenceRows::longest_head() const {
  int32_t longest = 0;
  for (const HeadRows& head : heads_) longest = std::max(longest, head.rows());
  return longest;
}

}  // namespace tidepool
