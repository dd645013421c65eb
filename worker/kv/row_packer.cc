#include "worker/kv/row_packer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/limits.h"

namespace tidepool {

std::vector<int32_t> RowPacker::ToPack(const HeadRows& head, int32_t tokens) const {
  const absl::Span<const int32_t> order = head.order();
  const int32_t first_residual = tokens - residual_tokens_;
  const auto residual = std::partition_point(order.begin(), order.end(),
                                             [&](int32_t slot) { return head.position(slot) < first_residual; });
  std::vector<int32_t> slots;
  if (residual - order.begin() - head.packed_rows() < kGroupTokens) return slots;  // packed rows are all older
  for (auto at = order.begin(); at != residual; ++at) {
    if (head.kind(*at) == RowKind::kKept && head.merged()[*at] == 0 && !head.is_packed(*at)) slots.push_back(*at);
  }
  slots.resize(slots.size() / kGroupTokens * kGroupTokens);
  return slots;
}

void RowPacker::CloseHoles(Backend& backend, SequenceRows& rows, int layer, int kv_head) const {
  HeadRows& head = rows.head(layer, kv_head);
  while (static_cast<int32_t>(head.groups().size()) * kGroupTokens - head.packed_rows() >= kGroupTokens) {
    const auto fewest = std::min_element(head.groups().begin(), head.groups().end(),
                                         [](const RowGroup& a, const RowGroup& b) { return a.rows < b.rows; });
    const int32_t begin = fewest->first_slot, end = begin + kGroupTokens;
    int32_t from = begin;
    for (const RowGroup& group : head.groups()) {
      if (group.first_slot == begin) continue;
      for (int32_t to = group.first_slot; to < group.first_slot + kGroupTokens; ++to) {
        if (head.kind(to) != RowKind::kFree) continue;
        while (from < end && head.kind(from) == RowKind::kFree) ++from;
        if (from == end) break;
        backend.MovePackedRow(rows, layer, kv_head, from, to);
      }
    }
    head.FreeEmptyGroups(rows.pool());
  }
}

void RowPacker::Dissolve(Backend& backend, SequenceRows& rows, int layer, int kv_head) const {
  HeadRows& head = rows.head(layer, kv_head);
  const size_t row_bytes = backend.layout().row_bytes(), page_bytes = rows.pool().page_bytes(precision_);
  for (size_t g = 0; g < head.groups().size();) {
    const RowGroup& group = head.groups()[g];
    if (group.rows * row_bytes > page_bytes) {
      ++g;
      continue;
    }
    std::vector<int32_t> slots;
    for (int32_t slot = group.first_slot; slot < group.first_slot + kGroupTokens; ++slot) {
      if (head.kind(slot) != RowKind::kFree) slots.push_back(slot);
    }
    std::string raw(slots.size() * row_bytes, '\0');
    backend.ReadRows(rows, layer, kv_head, slots, raw.data());
    const std::vector<int32_t> plain = head.DissolveGroup(rows.pool(), g);
    for (size_t i = 0; i < plain.size(); ++i) {
      backend.WriteRow(rows, layer, kv_head, plain[i], raw.data() + i * row_bytes);
    }
  }
}

void RowPacker::Settle(Backend& backend, SequenceRows& rows, int32_t tokens) const {
  if (precision_ == KvPrecision::kF16) return;
  for (int layer = 0; layer < rows.layers(); ++layer) {
    std::vector<Backend::PackTask> tasks;
    for (int kv_head = 0; kv_head < rows.kv_heads(); ++kv_head) {
      HeadRows& head = rows.head(layer, kv_head);
      head.FreeEmptyGroups(rows.pool());
      if (precision_ == KvPrecision::kInt8) {
        CloseHoles(backend, rows, layer, kv_head);
      } else {
        Dissolve(backend, rows, layer, kv_head);
      }
      std::vector<int32_t> slots = ToPack(head, tokens);
      if (!slots.empty()) tasks.push_back({layer, kv_head, std::move(slots)});
    }
    if (!tasks.empty()) backend.Pack(rows, precision_, tasks);
  }
}

}  // namespace tidepool
