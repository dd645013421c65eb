#include "worker/kv/window_attention.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "worker/kernels/cpu/attention.h"

namespace tidepool {

void RowToFloat(const KvLayout& layout, const char* row, float* out) {
  if (layout.type == KvType::kF16) {
    HalfToFloat(reinterpret_cast<const uint16_t*>(row), 2 * layout.head_dim, out);
  } else {
    std::memcpy(out, row, layout.row_bytes());
  }
}

void RowFromFloat(const KvLayout& layout, const float* in, char* row) {
  if (layout.type == KvType::kF16) {
    FloatToHalf(in, 2 * layout.head_dim, reinterpret_cast<uint16_t*>(row));
  } else {
    std::memcpy(row, in, layout.row_bytes());
  }
}

AttentionRows AttentionOfLast(Backend& backend, const SequenceRows& rows, int layer, int kv_head, int group,
                              const QueryRing& ring, int last, absl::FunctionRef<float(int32_t position)> scale) {
  const HeadRows& head = rows.head(layer, kv_head);
  const absl::Span<const int32_t> order = head.order();
  const int head_dim = backend.layout().head_dim;
  AttentionRows result;
  result.queries = std::min(last, ring.tokens(layer));
  const int first = ring.tokens(layer) - result.queries;
  const int32_t newest = head.position(order.back());
  std::vector<float> scaled(static_cast<size_t>(group) * result.queries * head_dim);
  std::vector<const float*> queries;
  std::vector<int32_t> visible;
  for (int g = 0; g < group; ++g) {
    for (int i = 0; i < result.queries; ++i) {
      const int32_t position = newest - result.queries + 1 + i;
      const float* query = ring.Token(layer, first + i) + int64_t{kv_head * group + g} * head_dim;
      float* copy = scaled.data() + queries.size() * head_dim;
      const float factor = scale(position);
      for (int c = 0; c < head_dim; ++c) copy[c] = factor * query[c];
      queries.push_back(copy);
      const auto end = std::upper_bound(order.begin(), order.end(), position,
                                        [&](int32_t p, int32_t slot) { return p < head.position(slot); });
      visible.push_back(std::max<int32_t>(1, static_cast<int32_t>(end - order.begin())));
    }
  }
  std::vector<float> all(queries.size() * order.size());
  backend.Probabilities(rows, layer, kv_head, queries, visible, all.data());
  result.keys = head.rows() - head.recalled_rows();
  if (result.keys == head.rows()) {
    result.probabilities = std::move(all);
    return result;
  }
  std::vector<size_t> kept;
  for (size_t i = 0; i < order.size(); ++i) {
    if (head.kind(order[i]) == RowKind::kKept) kept.push_back(i);
  }
  result.probabilities.resize(queries.size() * kept.size());
  float* out = result.probabilities.data();
  for (size_t q = 0; q < queries.size(); ++q) {
    const float* of_query = all.data() + q * order.size();
    for (size_t i : kept) *out++ = of_query[i];
  }
  return result;
}

RowVectors ReadVectors(Backend& backend, const SequenceRows& rows, int layer, int kv_head,
                       absl::Span<const int32_t> slots) {
  const KvLayout& layout = backend.layout();
  std::string raw(slots.size() * layout.row_bytes(), '\0');
  backend.ReadRows(rows, layer, kv_head, slots, raw.data());
  std::vector<float> row(2 * layout.head_dim);
  RowVectors vectors;
  vectors.keys.reserve(slots.size() * layout.head_dim);
  vectors.values.reserve(slots.size() * layout.head_dim);
  for (size_t i = 0; i < slots.size(); ++i) {
    RowToFloat(layout, raw.data() + i * layout.row_bytes(), row.data());
    vectors.keys.insert(vectors.keys.end(), row.begin(), row.begin() + layout.head_dim);
    vectors.values.insert(vectors.values.end(), row.begin() + layout.head_dim, row.end());
  }
  return vectors;
}

}  // namespace tidepool
