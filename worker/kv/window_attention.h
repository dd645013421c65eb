// Attention of a sequence's last queries over the rows that its policy keeps: what window, last-row, lazy-layer and
// AhaKV scores are made of.
#ifndef TIDEPOOL_WORKER_KV_WINDOW_ATTENTION_H_
#define TIDEPOOL_WORKER_KV_WINDOW_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "policies/retain/score_method.h"
#include "worker/backend/backend.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

// The softmax runs over all resident rows, recalled ones included; their columns are left out. last: queries wanted, at
// most as many as the ring remembers. scale: if given, what a query at a position is multiplied by.
AttentionRows AttentionOfLast(
    Backend& backend, const SequenceRows& rows, int layer, int kv_head, int group, const QueryRing& ring, int last,
    absl::FunctionRef<float(int32_t position)> scale = [](int32_t) { return 1.0f; });

// Keys and values of rows, float32, [slots][head_dim] each.
struct RowVectors {
  std::vector<float> keys, values;
};
RowVectors ReadVectors(Backend& backend, const SequenceRows& rows, int layer, int kv_head,
                       absl::Span<const int32_t> slots);

// A row's elements, K then V, and back.
void RowToFloat(const KvLayout& layout, const char* row, float* out);
void RowFromFloat(const KvLayout& layout, const float* in, char* row);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_WINDOW_ATTENTION_H_
