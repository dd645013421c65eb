// What the device budget of a sequence is, and what of it goes where: the recall index if it lies on the device, recall
// slots, and the rest to the rows that the policy keeps. All other code asks here, so that the parts cannot disagree.
//
//   budget = budget_bytes, or budget_tokens rows of every (layer, kv head), or budget_fraction of the full cache's
//   bytes, in rows of each (layer, kv head) on average; budget = index + recall + kept
#ifndef TIDEPOOL_POLICIES_RETAIN_BUDGET_SPLIT_H_
#define TIDEPOOL_POLICIES_RETAIN_BUDGET_SPLIT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "policies/retain/compression_spec.h"

namespace tidepool {

// What a row and the index take on the device.
struct DeviceShape {
  int layers = 1;
  int kv_heads = 1;
  double row_bytes = 1;       // of a resident row
  double full_row_bytes = 1;  // of a row of the full cache, which a fraction is of
  // The recall index, of all layers and kv heads, as far as it lies on the device: nothing when it lies in host memory.
  double index_fixed_bytes = 0;
  double index_bytes_per_token = 0;

  int64_t heads() const { return int64_t{layers} * kv_heads; }
};

// Rows of each (layer, kv head), on average.
struct BudgetSplit {
  int32_t budget = 0;
  int32_t index = 0;   // rows' worth of bytes, rounded up
  int32_t recall = 0;  // slots, the same number in every (layer, kv head)
  int32_t kept = 0;    // what is left: below LeastKeptRows, even negative, when the budget is too small
};

// Of `tokens` tokens seen. Recall slots are spec.recall.rows, or spec.recall.share of what the index leaves; never so
// many that the policy has less than LeastKeptRows and one more, but at least 1. Preset full: all are kept.
BudgetSplit SplitBudget(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens);

// The whole budget in bytes, not rounded to rows; 0 for preset full.
int64_t BudgetBytes(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens);

// Why `spec` cannot be held on this device for a sequence that ends with `tokens` tokens: InvalidArgument naming the
// field. Only where the decoding budget is held or the prompt is chunked; budgets that are merely below the least rows
// of a policy while a sequence is short are not refused.
absl::Status CheckBudget(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_BUDGET_SPLIT_H_
