#include "worker/kv/resident_rows.h"

#include <algorithm>
#include <functional>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace tidepool {

size_t HeadRows::PlaceOf(int32_t position) const {
  // Without a branch, which would be guessed wrong every other time.
  const int32_t* first = order_.data();
  size_t left = order_.size();
  while (left > 1) {
    const size_t half = left / 2;
    first += position_[first[half - 1]] < position ? half : 0;
    left -= half;
  }
  return first - order_.data() + (left == 1 && position_[*first] < position ? 1 : 0);
}

int32_t HeadRows::LastPage(KvPrecision precision) const {
  for (size_t i = pages_.size(); i-- > 0;) {
    if (pages_[i].precision == precision && pages_[i].page >= 0) return pages_[i].page;
  }
  return -1;
}

int32_t HeadRows::AppendSlots(const SlotPage& page) {
  const int32_t first = slots();
  Touch(first);
  pages_.push_back(page);
  position_.resize(first + kPageSlots, -1);
  kind_.resize(first + kPageSlots, RowKind::kFree);
  merged_.resize(first + kPageSlots, 0);
  for (std::vector<float>& sums : sums_) sums.resize(first + kPageSlots, 0.0f);
  return first;
}

void HeadRows::Place(int32_t slot, int32_t position, RowKind kind) {
  position_[slot] = position;
  kind_[slot] = kind;
  merged_[slot] = 0;
  recalled_ += kind == RowKind::kRecalled;
  for (std::vector<float>& sums : sums_) sums[slot] = 0;
}

void HeadRows::NeedFreeSlot(PagePool& pool, int32_t rows) {
  if (!free_.empty()) return;
  const bool many = rows > PagePool::kExtentPages / 2 * kPageSlots;
  const int32_t first = AppendSlots({.page = pool.Allocate(KvPrecision::kF16, LastPage(KvPrecision::kF16), many)});
  for (int32_t slot = first + kPageSlots - 1; slot >= first; --slot) free_.push_back(slot);
}

int32_t HeadRows::Add(PagePool& pool, int32_t position, RowKind kind) {
  NeedFreeSlot(pool);
  const int32_t slot = free_.back();
  free_.pop_back();
  Touch(slot);
  Place(slot, position, kind);
  if (order_.empty() || position_[order_.back()] < position) {
    in_order_ = in_order_ && slot == rows();
    order_.push_back(slot);
  } else {
    const auto at = order_.begin() + static_cast<int64_t>(PlaceOf(position));
    TIDEPOOL_CHECK(position_[*at] != position);
    order_.insert(at, slot);
    in_order_ = false;
  }
  return slot;
}

void HeadRows::Extend(PagePool& pool, int32_t first_position, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    NeedFreeSlot(pool, count - i);
    Add(pool, first_position + i, RowKind::kKept);
  }
}

void HeadRows::Replace(int32_t slot, int32_t position) {
  TIDEPOOL_CHECK(kind_[slot] != RowKind::kFree && !is_packed(slot));
  const auto from = order_.begin() + static_cast<int64_t>(PlaceOf(position_[slot]));
  const auto to = order_.begin() + static_cast<int64_t>(PlaceOf(position));
  TIDEPOOL_CHECK(from != order_.end() && *from == slot && (to == order_.end() || position_[*to] != position));
  if (from < to) {
    std::rotate(from, from + 1, to);
  } else {
    std::rotate(to, from, from + 1);
  }
  const RowKind kind = kind_[slot];
  recalled_ -= kind == RowKind::kRecalled;
  Place(slot, position, kind);
  in_order_ = false;
}

void HeadRows::Vacate(int32_t slot) {
  recalled_ -= kind_[slot] == RowKind::kRecalled;
  Touch(slot);
  position_[slot] = -1;
  kind_[slot] = RowKind::kFree;
  if (!is_packed(slot)) return;
  --packed_rows_;
  for (RowGroup& group : groups_) {
    if (slot >= group.first_slot && slot < group.first_slot + kGroupTokens) --group.rows;
  }
}

void HeadRows::Remove(int32_t slot) {
  TIDEPOOL_CHECK(kind_[slot] != RowKind::kFree);
  const auto at = order_.begin() + static_cast<int64_t>(PlaceOf(position_[slot]));
  TIDEPOOL_CHECK(at != order_.end() && *at == slot);
  in_order_ = in_order_ && at + 1 == order_.end();
  order_.erase(at);
  Vacate(slot);
  if (!is_packed(slot)) {
    free_.insert(std::lower_bound(free_.begin(), free_.end(), slot, std::greater<int32_t>()), slot);
  }
}

void HeadRows::RemoveAll(absl::Span<const int32_t> slots) {
  constexpr size_t kFew = 4;  // up to so many one by one
  if (slots.size() <= kFew) {
    for (int32_t slot : slots) Remove(slot);
    return;
  }
  for (int32_t slot : slots) {
    TIDEPOOL_CHECK(kind_[slot] != RowKind::kFree);
    Vacate(slot);
    if (!is_packed(slot)) free_.push_back(slot);
  }
  std::sort(free_.begin(), free_.end(), std::greater<int32_t>());
  std::erase_if(order_, [this](int32_t slot) { return kind_[slot] == RowKind::kFree; });
  in_order_ = false;
}

void HeadRows::KeepColumnSums(int query_heads, bool steps) {
  sums_.assign(query_heads, std::vector<float>(position_.size(), 0.0f));
  query_heads_ = query_heads;
  steps_in_columns_ = steps;
}

void HeadRows::KeepStepSums() {
  DropStepSums();
  sums_.emplace_back(position_.size(), 0.0f);
  summed_steps_ = 0;
}

void HeadRows::DropStepSums() { sums_.resize(query_heads_); }

void HeadRows::set_kind(int32_t slot, RowKind kind) {
  recalled_ += (kind == RowKind::kRecalled) - (kind_[slot] == RowKind::kRecalled);
  kind_[slot] = kind;
}

int32_t HeadRows::Find(int32_t position) const {
  const size_t at = PlaceOf(position);
  return at < order_.size() && position_[order_[at]] == position ? order_[at] : -1;
}

void HeadRows::Prefetch() const {
  constexpr size_t kLine = 64;
  auto prefetch = [](const auto& values) {
    const auto* bytes = reinterpret_cast<const char*>(values.data());
    for (size_t at = 0; at < values.size() * sizeof values[0]; at += kLine) __builtin_prefetch(bytes + at);
  };
  prefetch(order_);
  prefetch(position_);
  prefetch(kind_);
  prefetch(merged_);
}

void HeadRows::Renumber(PagePool& pool) {
  FreeEmptyGroups(pool);
  Touch(0);
  // new_slot[i]: where the slot's row is now.
  std::vector<int32_t> new_slot(slots(), -1);
  int32_t plain_rows = 0;
  for (int32_t slot : order_) {
    if (!is_packed(slot)) new_slot[slot] = plain_rows++;
  }
  const int32_t plain_pages = (plain_rows + kPageSlots - 1) / kPageSlots;
  std::vector<SlotPage> pages;
  for (const SlotPage& page : pages_) {
    if (page.precision != KvPrecision::kF16) continue;
    if (static_cast<int32_t>(pages.size()) < plain_pages) {
      pages.push_back(page);
    } else {
      pool.Free(page.page);
    }
  }
  for (RowGroup& group : groups_) {
    const auto first = static_cast<int32_t>(pages.size()) * kPageSlots;
    for (int32_t i = 0; i < kGroupTokens; ++i) new_slot[group.first_slot + i] = first + i;
    group.first_slot = first;
    for (uint8_t half = 0; half < 2; ++half) pages.push_back({group.page, group.precision, half});
  }
  const size_t slot_count = pages.size() * kPageSlots;
  auto move = [&](auto& values, auto empty) {
    std::remove_reference_t<decltype(values)> moved(slot_count, empty);
    for (int32_t slot : order_) moved[new_slot[slot]] = values[slot];
    values = std::move(moved);
  };
  move(position_, int32_t{-1});
  move(kind_, RowKind::kFree);
  move(merged_, uint8_t{0});
  for (std::vector<float>& sums : sums_) move(sums, 0.0f);
  for (int32_t& slot : order_) slot = new_slot[slot];
  pages_ = std::move(pages);
  hollow_pages_ = 0;
  free_.clear();
  for (int32_t slot = plain_pages * kPageSlots - 1; slot >= plain_rows; --slot) free_.push_back(slot);
  in_order_ = groups_.empty();
}

void HeadRows::TakeForGroups(absl::Span<const int32_t> slots) {
  TIDEPOOL_CHECK(slots.size() % kGroupTokens == 0 && pending_.empty());
  Touch(0);
  for (int32_t slot : slots) {
    TIDEPOOL_CHECK(kind_[slot] == RowKind::kKept && merged_[slot] == 0 && !is_packed(slot));
    PendingRow& row = pending_.emplace_back(PendingRow{.position = position_[slot]});
    for (const std::vector<float>& sums : sums_) row.sums.push_back(sums[slot]);
    kind_[slot] = RowKind::kFree;
    position_[slot] = -1;
    free_.push_back(slot);
  }
  std::erase_if(order_, [this](int32_t slot) { return kind_[slot] == RowKind::kFree; });
  std::sort(free_.begin(), free_.end(), std::greater<int32_t>());
  in_order_ = false;
}

int32_t HeadRows::AppendGroup(PagePool& pool, KvPrecision precision, std::vector<int32_t> founders) {
  const int32_t page = pool.Allocate(precision, LastPage(precision));
  const int32_t first = AppendSlots({page, precision, 0});
  AppendSlots({page, precision, 1});
  groups_.push_back({precision, page, first, 0, std::move(founders)});
  return first;
}

std::vector<int32_t> HeadRows::AddGroups(PagePool& pool, KvPrecision precision) {
  std::vector<int32_t> pages;
  for (size_t begin = 0; begin < pending_.size(); begin += kGroupTokens) {
    std::vector<int32_t> founders;
    for (int i = 0; i < kGroupTokens; ++i) founders.push_back(pending_[begin + i].position);
    const int32_t first = AppendGroup(pool, precision, std::move(founders));
    for (int i = 0; i < kGroupTokens; ++i) {
      const PendingRow& row = pending_[begin + i];
      Place(first + i, row.position, RowKind::kKept);
      for (size_t g = 0; g < sums_.size(); ++g) sums_[g][first + i] = row.sums[g];
      order_.push_back(first + i);
    }
    groups_.back().rows = kGroupTokens;
    packed_rows_ += kGroupTokens;
    pages.push_back(groups_.back().page);
  }
  pending_.clear();
  SortOrder();
  return pages;
}

int32_t HeadRows::RestoreGroup(PagePool& pool, KvPrecision precision, std::vector<int32_t> founders,
                               absl::Span<const int32_t> resident) {
  const int32_t first = AppendGroup(pool, precision, std::move(founders));
  RowGroup& group = groups_.back();
  for (int32_t i = 0; i < kGroupTokens; ++i) {
    if (!std::binary_search(resident.begin(), resident.end(), group.founders[i])) continue;
    Place(first + i, group.founders[i], RowKind::kKept);
    order_.push_back(first + i);
    ++group.rows;
  }
  packed_rows_ += group.rows;
  SortOrder();
  return group.page;
}

void HeadRows::SortOrder() {
  std::sort(order_.begin(), order_.end(), [this](int32_t a, int32_t b) { return position_[a] < position_[b]; });
  in_order_ = false;
}

int32_t HeadRows::MoveToPlain(PagePool& pool, int32_t slot) {
  TIDEPOOL_CHECK(is_packed(slot));
  const int32_t position = position_[slot];
  std::vector<float> sums;
  for (const std::vector<float>& array : sums_) sums.push_back(array[slot]);
  Remove(slot);
  const int32_t moved = Add(pool, position, RowKind::kKept);
  for (size_t g = 0; g < sums.size(); ++g) sums_[g][moved] = sums[g];
  merged_[moved] = 1;
  return moved;
}

std::vector<int32_t> HeadRows::DissolveGroup(PagePool& pool, size_t group) {
  const int32_t first = groups_[group].first_slot;
  std::vector<PendingRow> rows;
  for (int32_t slot = first; slot < first + kGroupTokens; ++slot) {
    if (kind_[slot] == RowKind::kFree) continue;
    PendingRow& row = rows.emplace_back(PendingRow{.position = position_[slot]});
    for (const std::vector<float>& sums : sums_) row.sums.push_back(sums[slot]);
    Remove(slot);
  }
  FreeEmptyGroups(pool);
  std::vector<int32_t> slots;
  for (const PendingRow& row : rows) {
    const int32_t slot = Add(pool, row.position, RowKind::kKept);
    for (size_t g = 0; g < row.sums.size(); ++g) sums_[g][slot] = row.sums[g];
    merged_[slot] = 1;
    slots.push_back(slot);
  }
  return slots;
}

void HeadRows::MovePacked(int32_t from, int32_t to) {
  TIDEPOOL_CHECK(is_packed(from) && is_packed(to) && kind_[from] != RowKind::kFree && kind_[to] == RowKind::kFree);
  Touch(std::min(from, to));
  position_[to] = std::exchange(position_[from], -1);
  kind_[to] = std::exchange(kind_[from], RowKind::kFree);
  merged_[to] = merged_[from];
  for (std::vector<float>& sums : sums_) sums[to] = sums[from];
  *std::find(order_.begin(), order_.end(), from) = to;
  for (RowGroup& group : groups_) {
    if (from >= group.first_slot && from < group.first_slot + kGroupTokens) {
      group.founders[from - group.first_slot] = -1;
      --group.rows;
    }
    if (to >= group.first_slot && to < group.first_slot + kGroupTokens) {
      group.founders[to - group.first_slot] = position_[to];
      ++group.rows;
    }
  }
}

void HeadRows::FreeEmptyGroups(PagePool& pool) {
  for (const RowGroup& group : groups_) {
    if (group.rows != 0) continue;
    pool.Free(group.page, group.precision);
    Touch(group.first_slot);
    // The slots are there until Renumber, and hold nothing.
    for (int half = 0; half < 2; ++half) pages_[group.first_slot / kPageSlots + half].page = -1;
    hollow_pages_ += 2;
  }
  std::erase_if(groups_, [](const RowGroup& group) { return group.rows == 0; });
}

int64_t HeadRows::bytes(const PagePool& pool) const {
  const size_t plain = pages_.size() - 2 * groups_.size() - static_cast<size_t>(hollow_pages_);
  auto bytes = static_cast<int64_t>(plain * pool.page_bytes());
  for (const RowGroup& group : groups_) bytes += static_cast<int64_t>(pool.page_bytes(group.precision));
  return bytes;
}

void HeadRows::Clear(PagePool& pool) {
  for (const RowGroup& group : groups_) pool.Free(group.page, group.precision);
  for (const SlotPage& page : pages_) {
    if (page.precision == KvPrecision::kF16) pool.Free(page.page);
  }
  *this = HeadRows();
}

SequenceRows::SequenceRows(PagePool* pool, int layers, int kv_heads)
    : pool_(pool), layers_(layers), kv_heads_(kv_heads), heads_(static_cast<size_t>(layers) * kv_heads) {}

SequenceRows::~SequenceRows() {
  for (HeadRows& head : heads_) head.Clear(*pool_);
}

void SequenceRows::Extend(int32_t first_position, int32_t count) {
  for (HeadRows& head : heads_) head.Extend(*pool_, first_position, count);
}

int64_t SequenceRows::total_rows() const {
  int64_t rows = 0;
  for (const HeadRows& head : heads_) rows += head.rows();
  return rows;
}

int64_t SequenceRows::total_bytes() const {
  int64_t bytes = 0;
  for (const HeadRows& head : heads_) bytes += head.bytes(*pool_);
  return bytes;
}

bool SequenceRows::any_packed() const {
  return std::any_of(heads_.begin(), heads_.end(), [](const HeadRows& head) { return !head.groups().empty(); });
}

int32_t SequenceRows::longest_head() const {
  int32_t longest = 0;
  for (const HeadRows& head : heads_) longest = std::max(longest, head.rows());
  return longest;
}

}  // namespace tidepool
